"""Sends answers: as server-sent events while they are made, or whole.

Enters: answers that were asked for, and what builds their JSON. Leaves: one HTTP response. Whatever ends
it (the answers' end, a client that leaves, one that does not read, a time limit), the answers' places in
the batch are free afterwards.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from typing import Any, Protocol

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from pocketglm.serve.answer_figures import timings_of, usage_of
from pocketglm.serve.answer_request import AnswerPiece
from pocketglm.serve.async_model import Answer
from pocketglm.serve.http_errors import ApiError, api_error
from pocketglm.serve.service import Service

EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events otherwise
]
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
STALL_CHECK_S = 5.0
COMMENT = b": the answer is being computed\n\n"
"""What clients skip, and what proxies see of a connection that is not dead."""


class Answers(Protocol):
    """Builds JSON from pieces: `ChatAnswers`, `CompletionAnswers`."""

    def opening(self) -> list[dict[str, Any]]: ...
    def chunks(self, index: int, piece: AnswerPiece) -> list[dict[str, Any]]: ...
    def collect(self, index: int, piece: AnswerPiece) -> None: ...
    def whole(self) -> dict[str, Any]: ...
    def figures_chunk(self) -> dict[str, Any]: ...


class AnswerResponse(Response):
    """The response to a request for `answers`; every `choices` of them belong to one prompt."""

    def __init__(
        self,
        service: Service,
        answers: Sequence[Answer],
        builder: Answers,
        *,
        choices: int,
        stream: bool,
        include_usage: bool,
    ) -> None:
        super().__init__()
        self._service = service
        self._answers = answers
        self._builder = builder
        self._choices = choices
        self._stream = stream
        self._include_usage = include_usage
        self._sending = asyncio.Lock()
        self._sending_since: float | None = None
        self._sent_at = 0.0
        self._started = self._ended = False
        self._unfinished = len(answers)
        self._gone = False
        self._timed_out = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        self._sent_at = loop.time()
        beside = [loop.create_task(self._watch(receive, task))]
        if self._stream:
            beside.append(loop.create_task(self._break_silence(send)))
        timer = loop.call_later(self._service.settings.limits.request_s, self._time_out)
        try:
            await (self._send_events(send) if self._stream else self._send_whole(scope, receive, send))
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            timer.cancel()
            for each in beside:
                each.cancel()
            for answer in self._answers:
                answer.cancel()
                reason = "abandoned" if self._gone else answer.finish_reason or "failed"
                self._service.metrics.answered(answer.statistics, answer.waited_s, reason)

    async def _send_events(self, send: Send) -> None:
        opening = self._builder.opening()
        try:
            async for pieces in merged(self._answers):
                if chunks := [chunk for index, piece in pieces for chunk in self._chunks(index, piece)]:
                    chunks, opening = [*opening, *chunks], []
                    await self._send(send, b"".join(self._event(chunk) for chunk in chunks))
                self._check_cancelled(pieces)
        except Exception as error:
            refused = api_error(error)
            if not self._started:
                await self._send_error(refused, send)
                return
            await self._send(send, _event_of(refused.body))
        await self._send(send, b"data: [DONE]\n\n", more=False)

    def _chunks(self, index: int, piece: AnswerPiece) -> list[dict[str, Any]]:
        """What a piece adds to the stream; nothing, if it says that the answer was cancelled."""
        if piece.finish_reason == "cancelled":
            return []
        chunks = self._builder.chunks(index, piece)
        if piece.finish_reason is not None:
            chunks += self._last_chunks(chunks)
        return chunks

    def _last_chunks(self, chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """After the end of the last answer: the figures, in the last chunk or one of their own."""
        self._unfinished -= 1
        if self._unfinished:
            return []
        timings = timings_of(self._answers)
        chunks[-1] = {**chunks[-1], "timings": timings}
        if not self._include_usage:
            return []
        usage = usage_of(self._answers, self._choices)
        return [{**self._builder.figures_chunk(), "usage": usage, "timings": timings}]

    def _event(self, chunk: dict[str, Any]) -> bytes:
        if self._include_usage and "usage" not in chunk:
            chunk["usage"] = None
        return _event_of(chunk)

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async for pieces in merged(self._answers):
                self._check_cancelled(pieces)
                for index, piece in pieces:
                    self._builder.collect(index, piece)
        except Exception as error:
            await self._send_error(api_error(error), send)
            return
        body = {
            **self._builder.whole(),
            "usage": usage_of(self._answers, self._choices),
            "timings": timings_of(self._answers),
        }
        await _send_response(JSONResponse(body), send)

    async def _send_error(self, error: ApiError, send: Send) -> None:
        async with self._sending:
            self._started = self._ended = True
            await _send_response(error.response(), send)

    async def _send(self, send: Send, data: bytes, more: bool = True) -> None:
        async with self._sending:
            await self._send_now(send, data, more)

    async def _send_now(self, send: Send, data: bytes, more: bool = True) -> None:
        """Send a piece of the stream, after its head if that is still due. With `_sending` held."""
        self._sent_at = self._sending_since = asyncio.get_running_loop().time()
        self._ended = not more
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_HEADERS})
        await send({"type": "http.response.body", "body": data, "more_body": more})
        self._sending_since = None

    async def _break_silence(self, send: Send) -> None:
        """Send a comment whenever a stream was silent for long: a long prompt, or a queue."""
        loop, limit = asyncio.get_running_loop(), self._service.settings.limits.silence_s
        while not self._ended:
            await asyncio.sleep(max(0.0, self._sent_at + limit - loop.time()))
            async with self._sending:
                if not self._ended and loop.time() - self._sent_at >= limit:
                    await self._send_now(send, COMMENT)

    async def _watch(self, receive: Receive, task: asyncio.Task[Any] | None) -> None:
        """Cancel the answers of a client that leaves, and the response to one that does not read."""
        leaving = asyncio.ensure_future(self._until_gone(receive))
        try:
            while not leaving.done():
                await asyncio.wait([leaving], timeout=STALL_CHECK_S)
                if self._stalled() and task is not None:
                    self._gone = True
                    task.cancel()
                    return
        finally:
            leaving.cancel()
        self._gone = True
        for answer in self._answers:
            answer.cancel()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def _stalled(self) -> bool:
        limit = self._service.settings.limits.send_s
        since = self._sending_since
        return since is not None and asyncio.get_running_loop().time() - since > limit

    def _time_out(self) -> None:
        self._timed_out = True
        for answer in self._answers:
            answer.cancel()

    def _check_cancelled(self, pieces: Sequence[tuple[int, AnswerPiece]]) -> None:
        if any(piece.finish_reason == "cancelled" for _, piece in pieces):
            raise self._why_cancelled()

    def _why_cancelled(self) -> ApiError:
        if self._timed_out:
            seconds = self._service.settings.limits.request_s
            return ApiError(504, f"the answer was not done after {seconds:g} s", code="timeout")
        if self._gone:
            return ApiError(499, "the client left")
        return ApiError(503, "the server is shutting down", code="shutting_down")


Pieces = list[tuple[int, AnswerPiece]]
"""With the index of the answer they belong to."""


def merged(answers: Sequence[Answer]) -> AsyncIterator[Pieces]:
    """The pieces of all answers as they come, several at a time where several have come."""
    return _batches(0, answers[0]) if len(answers) == 1 else _pumped(answers)


async def _pumped(answers: Sequence[Answer]) -> AsyncIterator[Pieces]:
    queue: asyncio.Queue[Pieces | Exception | None] = asyncio.Queue()
    tasks = [asyncio.ensure_future(_pump(i, answer, queue)) for i, answer in enumerate(answers)]
    try:
        left = len(answers)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()


async def _batches(index: int, answer: Answer) -> AsyncIterator[Pieces]:
    while True:
        try:
            pieces = await answer.several()
        except StopAsyncIteration:
            return
        yield [(index, piece) for piece in joined(pieces)]


def joined(pieces: Sequence[AnswerPiece]) -> list[AnswerPiece]:
    """Neighbouring pieces of nothing but text as one, since each costs an event. It stands for no token."""
    found: list[AnswerPiece] = []
    for plain, group in groupby(pieces, lambda piece: piece.logprobs is None and piece.finish_reason is None):
        several = list(group)
        if plain and len(several) > 1:
            several = [AnswerPiece(None, "".join(piece.text for piece in several))]
        found += several
    return found


async def _pump(index: int, answer: Answer, queue: asyncio.Queue[Pieces | Exception | None]) -> None:
    try:
        async for pieces in _batches(index, answer):
            queue.put_nowait(pieces)
    except Exception as error:
        queue.put_nowait(error)
    queue.put_nowait(None)


def _event_of(data: dict[str, Any]) -> bytes:
    return b"data: " + ENCODER.encode(data).encode() + b"\n\n"


async def _send_response(response: JSONResponse, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
    )
    await send({"type": "http.response.body", "body": response.body})
