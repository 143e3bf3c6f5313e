"""Answers of `/v1/completions`, as chunks of a stream and whole.

Enters: pieces of answers. Leaves: JSON objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pocketglm.serve.answer_request import AnswerPiece, TokenLogprobs
from pocketglm.serve.service import Service


@dataclass
class _Logprobs:
    """OpenAI's form for completions: lists side by side."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[str, float]] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__}


@dataclass
class _Choice:
    """What one choice has said so far; `offset` counts the characters of its tokens."""

    text: list[str] = field(default_factory=list)
    logprobs: _Logprobs = field(default_factory=_Logprobs)
    offset: int = 0
    finish_reason: str | None = None


class CompletionAnswers:
    """Builds the JSON of one request's answers."""

    def __init__(self, service: Service, choices: int, logprobs: bool) -> None:
        self._model = service.engine.model
        self._logprobs = logprobs
        self._choices = [_Choice() for _ in range(choices)]
        self._shared = {
            "id": service.new_id("cmpl"),
            "object": "text_completion",
            "created": service.now(),
            "model": service.settings.model_name,
            "system_fingerprint": service.fingerprint,
        }

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: a completion's first chunk is its first text."""
        return []

    def chunks(self, index: int, piece: AnswerPiece) -> list[dict[str, Any]]:
        """Chunks of a piece: text, the reason of the end."""
        logprobs = self._take(index, piece)
        reason = piece.finish_reason
        if not (piece.text or logprobs or reason):
            return []
        choice = {
            "index": index,
            "text": piece.text,
            "logprobs": None if logprobs is None else logprobs.to_dict(),
            "finish_reason": reason,
        }
        return [{**self._shared, "choices": [choice]}]

    def collect(self, index: int, piece: AnswerPiece) -> None:
        """Take a piece of an answer that is sent whole."""
        choice = self._choices[index]
        choice.text.append(piece.text)
        choice.finish_reason = piece.finish_reason
        if logprobs := self._take(index, piece):
            for name, values in logprobs.to_dict().items():
                getattr(choice.logprobs, name).extend(values)

    def whole(self) -> dict[str, Any]:
        """The answer without its figures."""
        choices = [
            {
                "index": index,
                "text": "".join(choice.text),
                "logprobs": choice.logprobs.to_dict() if self._logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(self._choices)
        ]
        return {**self._shared, "choices": choices}

    def figures_chunk(self) -> dict[str, Any]:
        """The last chunk, for the usage."""
        return {**self._shared, "choices": []}

    def _take(self, index: int, piece: AnswerPiece) -> _Logprobs | None:
        entry = piece.logprobs
        if entry is None:
            return None
        choice = self._choices[index]
        text = self._text(entry.token)
        offset, choice.offset = choice.offset, choice.offset + len(text)
        return _Logprobs([text], [entry.logprob], [self._top(entry)], [offset])

    def _top(self, entry: TokenLogprobs) -> dict[str, float]:
        """The most probable tokens and, as OpenAI has it, the chosen one."""
        top = {self._text(token): value for token, value in entry.top}
        return {**top, self._text(entry.token): entry.logprob}

    def _text(self, token: int) -> str:
        if not self._model.has_tokenizer:
            return f"token_id:{token}"
        return self._model.tokenizer.token_bytes(token).decode("utf-8", "replace")
