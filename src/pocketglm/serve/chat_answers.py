"""Answers of `/v1/chat/completions`, as chunks of a stream and whole.

Enters: pieces of answers. Leaves: JSON objects.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.serve.answer_request import AnswerPiece, TokenLogprobs
from pocketglm.serve.service import Service
from pocketglm.serve.tool_calls import ToolCall
from pocketglm.serve.tool_watch import ToolWatch


@dataclass
class _Choice:
    """What one choice has said so far."""

    watch: ToolWatch | None
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None


class ChatAnswers:
    """Builds the JSON of one request's answers."""

    def __init__(self, service: Service, watches: Sequence[ToolWatch | None], logprobs: bool) -> None:
        self._service = service
        self._tokenizer = service.engine.model.tokenizer
        self._logprobs = logprobs
        self._choices = [_Choice(watch) for watch in watches]
        self._shared = {
            "id": service.new_id("chatcmpl"),
            "created": service.now(),
            "model": service.settings.model_name,
            "system_fingerprint": service.fingerprint,
        }

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first piece."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(index, delta) for index in range(len(self._choices))]

    def chunks(self, index: int, piece: AnswerPiece) -> list[dict[str, Any]]:
        """Chunks of a piece: text, calls, the reason of the end."""
        text, logprobs, calls = self._take(index, piece)
        chunks = []
        if text or logprobs:
            chunks.append(self._chunk(index, {"content": text}, logprobs))
        if calls:
            chunks.append(
                self._chunk(index, {"tool_calls": [_call_delta(i, c) for i, c in enumerate(calls)]})
            )
        if reason := self._choices[index].finish_reason:
            chunks.append(self._chunk(index, {}, None, reason))
        return chunks

    def collect(self, index: int, piece: AnswerPiece) -> None:
        """Take a piece of an answer that is sent whole."""
        choice = self._choices[index]
        text, logprobs, calls = self._take(index, piece)
        choice.text.append(text)
        choice.calls.extend(calls)
        choice.logprobs.extend(logprobs)

    def whole(self) -> dict[str, Any]:
        """The answer without its figures."""
        return {
            **self._shared,
            "object": "chat.completion",
            "choices": [self._whole_choice(i, choice) for i, choice in enumerate(self._choices)],
        }

    def figures_chunk(self) -> dict[str, Any]:
        """The last chunk, for the usage."""
        return {**self._shared, "object": "chat.completion.chunk", "choices": []}

    def _take(self, index: int, piece: AnswerPiece) -> tuple[str, list[dict[str, Any]], list[ToolCall]]:
        choice = self._choices[index]
        logprobs = [] if piece.logprobs is None else [chat_logprob(self._tokenizer, piece.logprobs)]
        text, calls = piece.text, list[ToolCall]()
        if choice.watch is not None:
            text = choice.watch.feed(text)
            if piece.finish_reason is not None:
                rest, calls = choice.watch.finish()
                text += rest
        if piece.finish_reason is not None:
            choice.finish_reason = "tool_calls" if calls else piece.finish_reason
        return text, logprobs, calls

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        shown = {"content": logprobs, "refusal": None} if logprobs and self._logprobs else None
        choice = {"index": index, "delta": delta, "logprobs": shown, "finish_reason": finish_reason}
        return {**self._shared, "object": "chat.completion.chunk", "choices": [choice]}

    def _whole_choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        text = "".join(choice.text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if choice.calls:
            calls = [_call_delta(i, call) for i, call in enumerate(choice.calls)]
            message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
            message["content"] = text or None
        return {
            "index": index,
            "message": message,
            "logprobs": {"content": choice.logprobs, "refusal": None} if self._logprobs else None,
            "finish_reason": choice.finish_reason,
        }


def chat_logprob(tokenizer: Tokenizer, entry: TokenLogprobs) -> dict[str, Any]:
    """A token's probability in the chat form."""
    top = [_token(tokenizer, token, value) for token, value in entry.top]
    return {**_token(tokenizer, entry.token, entry.logprob), "top_logprobs": top}


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(token)
    return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


def _call_delta(index: int, call: ToolCall) -> dict[str, Any]:
    return {
        "index": index,
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
