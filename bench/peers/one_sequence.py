"""A peer that keeps one sequence: what is left to it is to begin anew and to run tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class OneSequence(ABC):
    """See `task.Runner`."""

    most_sequences = 1

    @abstractmethod
    def restart(self) -> None:
        """Forget everything."""

    @abstractmethod
    def run(self, tokens: list[int]) -> Any:
        """Append tokens. Returns the last one's logits, an array [vocabulary], when they are computed."""

    def prefill(self, tokens: list[int]) -> list[float]:
        self.restart()
        return [float(x) for x in self.run(tokens)[:1024]]

    def decode(self, token: int) -> int:
        return int(self.run([token]).argmax())

    def start_sequences(self, prompts: list[list[int]]) -> None:
        self.prefill(prompts[0])

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        return [self.decode(tokens[0])]
