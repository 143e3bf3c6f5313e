"""What an answer cost: OpenAI's usage, and the timings that the page shows.

Enters: the answers of one request. Leaves: JSON objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pocketglm.serve.async_model import Answer


def usage_of(answers: Sequence[Answer], choices: int) -> dict[str, Any]:
    """Tokens of all prompts (each counted once, however many choices it has) and all answers."""
    firsts = answers[::choices]
    prompt = sum(answer.statistics.prompt_tokens for answer in firsts)
    completion = sum(answer.statistics.generated_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(a.statistics.reused_tokens for a in firsts)},
    }


def timings_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Counts and seconds of the first answer; `tokens_per_second` is of all answers together."""
    first = answers[0].statistics
    decode_s = max(answer.statistics.decode_s for answer in answers)
    decoded = sum(max(0, answer.statistics.generated_tokens - 1) for answer in answers)
    return {
        "prompt_tokens": first.prompt_tokens,
        "reused_tokens": first.reused_tokens,
        "queue_s": round(answers[0].waited_s, 4),
        "prefill_s": round(first.prefill_s, 4),
        "decode_s": round(decode_s, 4),
        "prompt_tokens_per_second": round(first.prefill_tps, 2),
        "tokens_per_second": round(decoded / decode_s, 2) if decode_s > 0 else 0.0,
    }
