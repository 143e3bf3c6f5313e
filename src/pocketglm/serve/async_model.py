"""A model for asynchronous programs: many answers at once from one batch.

Enters: token ids, texts and conversations, from coroutines. Leaves: answers as asynchronous iterators.
The server is made of this class; programs of their own use it the same way.

    async with await AsyncModel.load("smollm2-int4") as model:
        async for text in model.stream([{"role": "user", "content": "Hello"}]):
            print(text, end="")
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pocketglm.engine.contract import Float32
from pocketglm.errors import InputError
from pocketglm.generate.model import Messages, Model, load
from pocketglm.generate.stream import Statistics
from pocketglm.serve.answer_request import AnswerPiece, AnswerRequest, FinishReason, check_tokens
from pocketglm.serve.jobs import AnswerJob, EmbeddingJob, Job
from pocketglm.serve.scheduler import Load, Scheduler
from pocketglm.serve.settings import BatchSettings


class Outcome:
    """What a job puts out, as it comes, in the event loop that asked for it."""

    def __init__(self, scheduler: Scheduler, job: Job) -> None:
        self._scheduler = scheduler
        self._job = job
        self.loop = asyncio.get_running_loop()
        self._items: deque[Any] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, items: Sequence[Any], ended: bool) -> None:
        """Take what the batch has made. Called in `loop`."""
        self._items.extend(items)
        self._ended = self._ended or ended
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Any:
        """The next item; raises what the job failed with, or `StopAsyncIteration` at its end."""
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = self.loop.create_future()
            await self._waiter
        item = self._items.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    async def several(self) -> list[Any]:
        """All that have come, at least one; else as `next`."""
        items = [await self.next()]
        while self._items and not isinstance(self._items[0], Exception):
            items.append(self._items.popleft())
        return items

    def cancel(self) -> None:
        """Give the job up: its place in the batch is free before the next step."""
        if not self._ended:
            self._scheduler.cancel(self._job)


class Answer(AsyncIterator[AnswerPiece]):
    """An answer in the making. Iterate for its pieces; `cancel()` ends it.

    Left before its end without `cancel()`, it is computed to the end. `finish_reason` is set by the last
    piece.
    """

    def __init__(self, outcome: Outcome, job: AnswerJob) -> None:
        self._outcome = outcome
        self._job = job
        self.finish_reason: FinishReason | None = None

    async def __anext__(self) -> AnswerPiece:
        piece: AnswerPiece = await self._outcome.next()
        self.finish_reason = piece.finish_reason
        return piece

    async def several(self) -> list[AnswerPiece]:
        """The pieces that have come, at least one; raises `StopAsyncIteration` at the end."""
        pieces: list[AnswerPiece] = await self._outcome.several()
        self.finish_reason = pieces[-1].finish_reason
        return pieces

    async def text(self) -> str:
        """The rest of the answer as one text."""
        return "".join([piece.text async for piece in self])

    def cancel(self) -> None:
        """End the answer; a last piece with the reason `cancelled` still comes. From the event loop."""
        self._outcome.cancel()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens so far, end tokens left out."""
        return tuple(self._job.generated)

    @property
    def statistics(self) -> Statistics:
        """Counts and seconds so far."""
        return self._job.statistics

    @property
    def waited_s(self) -> float:
        """Seconds from the request until the answer joined the batch; 0 while it waits."""
        return 0.0 if self._job.started is None else self._job.started - self._job.asked


class AsyncModel:
    """A model and the thread that computes for it. `close()` it, or use `async with`.

    Methods may be called from several event loops. The `model` underneath may be used too: its calls
    take turns with the batch's steps.
    """

    def __init__(self, model: Model, settings: BatchSettings | None = None) -> None:
        self.model = model
        self.settings = settings or BatchSettings()
        self._outcomes: dict[int, Outcome] = {}
        self._scheduler = Scheduler(model, self.settings, self._deliver)

    @classmethod
    async def load(
        cls, path: str | Path, *, batch: BatchSettings | None = None, **settings: Any
    ) -> AsyncModel:
        """Load a package without blocking the event loop; `settings` are those of `pocketglm.load`."""
        return cls(await asyncio.to_thread(load, path, **settings), batch)

    async def chat(self, messages: Messages, **sampling: Any) -> str:
        """Answer a conversation; as `Model.chat`."""
        return "".join([text async for text in self.stream(messages, **sampling)])

    async def stream(self, messages: Messages, **sampling: Any) -> AsyncIterator[str]:
        """The pieces of an answer to a conversation. Leaving the loop early cancels the answer."""
        settings = self.model.settings(**sampling)
        prompt = await asyncio.to_thread(self.model.chat_prompt, messages)
        answer = self.submit(AnswerRequest(tuple(prompt), settings))
        try:
            async for piece in answer:
                if piece.text:
                    yield piece.text
        finally:
            answer.cancel()

    def submit(self, request: AnswerRequest) -> Answer:
        """Ask for one answer. Raises `InputError` for a wrong request, `BusyError` for a full queue."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[AnswerRequest]) -> list[Answer]:
        """Ask for several answers: all of them are queued, or none."""
        for request in requests:
            request.check(self.model)
        jobs = [AnswerJob(self.model, request) for request in requests]
        return [Answer(outcome, job) for outcome, job in zip(self._queue(jobs), jobs, strict=True)]

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[Float32]:
        """One vector, float32 [hidden] of length one, for each list of token ids.

        It is the mean over all tokens of the last block's output after the model's final norm. Causal
        models were not trained for this: such vectors compare texts roughly.
        """
        for token_ids in texts:
            check_tokens(self.model, tuple(token_ids))
        outcomes = self._queue([EmbeddingJob(self.model, token_ids) for token_ids in texts])
        try:
            return [await outcome.next() for outcome in outcomes]
        except StopAsyncIteration:
            raise InputError("the request was cancelled") from None
        finally:
            for outcome in outcomes:
                outcome.cancel()

    @property
    def load_now(self) -> Load:
        """How many answers run and wait, and how much is cached."""
        return self._scheduler.load

    @property
    def retry_after_s(self) -> int:
        """Seconds after which a refused request may find room."""
        return self._scheduler.retry_after_s

    def cancel_all(self) -> None:
        """Cancel all answers and take no new ones."""
        self._scheduler.cancel_all()

    async def close(self) -> None:
        """Cancel all answers, end the thread and free the model. Idempotent."""
        await asyncio.to_thread(self._scheduler.stop)
        self.model.close()

    async def __aenter__(self) -> AsyncModel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _queue(self, jobs: Sequence[Job]) -> list[Outcome]:
        outcomes = [Outcome(self._scheduler, job) for job in jobs]
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._outcomes[id(job)] = outcome
        try:
            self._scheduler.submit(jobs)
        except BaseException:
            for job in jobs:
                del self._outcomes[id(job)]
            raise
        return outcomes

    def _deliver(self, jobs: Sequence[Job]) -> None:
        """Hand over what a step has made: one wake-up for each event loop. In the batch's thread."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Outcome, list[Any], bool]]] = {}
        for job in jobs:
            items, job.outbox = job.outbox, []
            outcome = self._outcomes.pop(id(job)) if job.done else self._outcomes[id(job)]
            by_loop.setdefault(outcome.loop, []).append((outcome, items, job.done))
        for loop, parts in by_loop.items():
            try:
                loop.call_soon_threadsafe(_put_all, parts)
            except RuntimeError:  # the loop was closed, so nobody waits any more
                for outcome, _, ended in parts:
                    if not ended:
                        outcome.cancel()


def _put_all(parts: Sequence[tuple[Outcome, list[Any], bool]]) -> None:
    for outcome, items, ended in parts:
        outcome.put(items, ended)
