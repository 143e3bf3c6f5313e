"""Runs one plan and says what it took: the inner process of `bench/plan.py`.

Enters: a task in JSON. Leaves: a report in JSON, of conversations that fill the context, one after the
other, without those of the first seconds, and the peak of the process. What a command of `pocketglm`
imports is imported, and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from pocketglm.cli import main as _  # noqa: F401 - it counts
from pocketglm.generate.bench import bench_prompts, peak_rss_bytes
from pocketglm.generate.memory_budget import anonymous_bytes
from pocketglm.generate.model import Model, load
from pocketglm.plan.placement import Placement

NEW_TOKENS = 64
WARM_S, MEASURED_S = 2.0, 2.0
"""For so long, or a whole one, conversations follow one another before they count, and then count."""


def run(task: Mapping[str, Any]) -> dict[str, float]:
    """Fill the context but for some tokens, then decode these; again and again."""
    placement = Placement.from_dict(task["placement"])
    began = time.perf_counter()
    with load(task["package"], placement=placement, threads=task["threads"], lookup=0) as model:
        load_s = time.perf_counter() - began
        (prompt,) = bench_prompts(model, model.context - NEW_TOKENS, 1)
        conversations(model, prompt, WARM_S)
        found = conversations(model, prompt, MEASURED_S)
        prefill_s, decode_s = map(sum, zip(*found, strict=True))
        return {
            "load_s": load_s,
            "prefill_tps": len(found) * len(prompt) / prefill_s,
            "decode_tps": len(found) * NEW_TOKENS / decode_s,
            "peak_bytes": peak_rss_bytes(),
            "anonymous_bytes": anonymous_bytes(),
        }


def conversations(model: Model, prompt: list[int], seconds: float) -> list[tuple[float, float]]:
    """One after the other; none begins after so many seconds."""
    end = time.perf_counter() + seconds
    found = [converse(model, prompt)]
    while time.perf_counter() < end:
        found.append(converse(model, prompt))
    return found


def converse(model: Model, prompt: list[int]) -> tuple[float, float]:
    """Seconds of the prompt, and of the answer's tokens."""
    with model.session() as session:
        began = time.perf_counter()
        token = int(session.forward(prompt, last_only=True)[-1].argmax())
        decoding = time.perf_counter()
        for _ in range(NEW_TOKENS):
            token = int(session.forward([token], last_only=True)[-1].argmax())
        return decoding - began, time.perf_counter() - decoding


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
