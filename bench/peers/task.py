"""What one child process is asked to measure, and the words for what it answers.

Standard library only: children run in the Python environments of the peers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One fresh process: load, answer a prompt, measure memory, then the steady rates.

    `first_prompt` tokens make the first answer. `prompts` are prefilled `repeats` times each afterwards.
    `contexts` are filled by a prefill, then `new_tokens` are decoded. `sequences` decode together from a
    short context, where the peer can.
    """

    model: str
    threads: int = 2
    first_prompt: int = 256
    prompts: tuple[int, ...] = (256,)
    contexts: tuple[int, ...] = (16,)
    sequences: tuple[int, ...] = ()
    new_tokens: int = 32
    repeats: int = 2
    vocabulary: int = 1024
    started: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """Positions that the KV cache of one sequence must hold."""
        return max(self.first_prompt, *self.prompts, *self.contexts, 0) + self.new_tokens + 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        data = json.loads(text)
        lists = {name: tuple(data[name]) for name in ("prompts", "contexts", "sequences")}
        return cls(**{**data, **lists})

    def tokens(self, count: int, seed: int = 0) -> list[int]:
        """A prompt: the same in every process. The last 600 ids are left out: they may be special."""
        usable = self.vocabulary - 600 if self.vocabulary > 2000 else self.vocabulary - 8
        return [(7 * i * i + 13 * i + 31 * seed + 5) % usable for i in range(count)]


class Runner(Protocol):
    """A loaded model of a peer. `most_sequences` is 1 where it has no way to decode several together."""

    most_sequences: int

    def prefill(self, tokens: list[int]) -> list[float]:
        """Forget everything, run a prompt, return the logits of its last token (or an empty list)."""

    def decode(self, token: int) -> int:
        """Append one token, return the likeliest next."""

    def start_sequences(self, prompts: list[list[int]]) -> None:
        """Forget everything, run several prompts, each in a sequence of its own."""

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        """Append a token to each, in one pass."""
