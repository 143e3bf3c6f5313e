"""PocketGLM's native engine on a package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.task import Task


def version() -> str:
    import pocketglm

    return pocketglm.__version__


class PocketGLM:
    most_sequences = 64

    def __init__(self, task: Task) -> None:
        import pocketglm

        self._model = pocketglm.load(Path(task.model), engine="native", threads=task.threads)
        self._special = self._model.spec.prefix_tokens
        self._sessions = [self._model.session()]

    def prefill(self, tokens: list[int]) -> list[float]:
        self._start(1)
        logits = self._sessions[0].forward(self._prompt(tokens), last_only=True)[-1]
        return [float(x) for x in logits[:1024]]

    def decode(self, token: int) -> int:
        return int(self._sessions[0].forward([token], last_only=True)[-1].argmax())

    def start_sequences(self, prompts: list[list[int]]) -> None:
        self._start(len(prompts))
        for session, prompt in zip(self._sessions, prompts, strict=True):
            session.forward(self._prompt(prompt), last_only=True)

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        from pocketglm.generate.batch import decode_together

        return [int(i) for i in np.argmax(decode_together(self._sessions, tokens), axis=1)]

    def _start(self, count: int) -> None:
        for session in self._sessions:
            session.close()
        self._sessions = [self._model.session() for _ in range(count)]

    def _prompt(self, tokens: list[int]) -> list[int]:
        """ChatGLM-6B's prompts end in two special tokens."""
        return tokens if self._special is None else [*tokens[:-2], self._special.gmask, self._special.sop]


def load(task: Task) -> PocketGLM:
    return PocketGLM(task)
