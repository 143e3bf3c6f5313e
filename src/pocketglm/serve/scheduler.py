"""Continuous batching: one thread computes for all requests, and they join and leave between its steps.

Enters: jobs, from any thread. Leaves: what they put out, handed to `deliver` after every step. A step is
one pass over the weights: the next token of every running answer, and beside them a piece of a prompt
that is new (docs/decisions/0017-continuous-batching.md).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from pocketglm.engine.contract import Float32
from pocketglm.errors import BusyError, EngineError, InputError, PocketGLMError
from pocketglm.generate.model import Model
from pocketglm.generate.prefix_cache import LEAST_COPIED
from pocketglm.generate.session import CHUNK_ROWS, common_prefix
from pocketglm.plan.kv_cache import kv_bytes_per_token
from pocketglm.serve.jobs import Job
from pocketglm.serve.mixed_batch import Part, forward_together
from pocketglm.serve.settings import BatchSettings
from pocketglm.serve.step_size import StepSize

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Job]], None]
"""Takes jobs whose outbox has something, or which are done, each once. Called by the scheduler's thread."""

MEMORY_SHARE = 4
"""Of the free memory, one part in this many may become KV caches if nothing else is said."""

FEW_ANSWERS = 2
"""Answers that may have guesses beside their tokens: with more, the rows of a pass are used well anyway."""


@dataclass(frozen=True)
class Load:
    """How busy the scheduler is, and what it has done so far."""

    running: int
    waiting: int
    cached_tokens: int
    most_cached_tokens: int
    steps: int
    preemptions: int


class Scheduler:
    """Starts its thread at once; `stop` ends it."""

    def __init__(self, model: Model, settings: BatchSettings, deliver: Deliver) -> None:
        self._model = model
        self._settings = settings
        self._deliver = deliver
        self._most_tokens = most_cached_tokens(model, settings)
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._due: list[Job] = []  # for `deliver`
        self._stopping = False
        self._size = StepSize(settings, CHUNK_ROWS)
        self._seconds_per_job = 1.0
        self._delivered_at = 0.0
        self._steps = 0
        self._preemptions = 0
        self._thread = threading.Thread(target=self._loop, name="pocketglm-batch", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, all or none. Raises `BusyError` where there is no room."""
        with self._changed:
            if self._stopping:
                raise BusyError("the server is shutting down")
            free = self._settings.running - len(self._running) + self._settings.waiting
            if len(self._waiting) + len(jobs) > free:
                raise BusyError(
                    f"{len(self._waiting)} requests are waiting already",
                    hint=f"try again in {self.retry_after_s} s",
                )
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a job out before the next step."""
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    def stop(self) -> None:
        """Cancel everything and end the thread. Idempotent."""
        self.cancel_all()
        self._thread.join()

    def cancel_all(self) -> None:
        """Cancel what runs and waits, and take nothing new."""
        with self._changed:
            self._stopping = True
            for job in (*self._waiting, *self._running):
                job.cancelled = True
            self._changed.notify()

    @property
    def load(self) -> Load:
        with self._changed:
            running = tuple(self._running)
            cached = sum(job.held for job in running) + self._idle_tokens()
            counts = (len(running), len(self._waiting), cached, self._most_tokens)
            return Load(*counts, self._steps, self._preemptions)

    @property
    def retry_after_s(self) -> int:
        """Seconds after which a refused request may find room, guessed from how long jobs took lately."""
        turns = (len(self._waiting) + 1) / self._settings.running
        return int(min(60, max(1, turns * self._seconds_per_job)))

    def _loop(self) -> None:
        while self._wait_for_work():
            try:
                self._leave()
                self._join()
                if self._running:
                    self._step()
            except Exception as error:  # outside the engine's pass none is expected, but without this
                logger.exception("the batch failed")  # thread all requests would wait for ever
                self._fail_all(error)

    def _wait_for_work(self) -> bool:
        if not self._running:
            self._deliver_due()
        with self._changed:
            while not (self._waiting or self._running):
                if self._stopping:
                    return False
                self._changed.wait()
        return True

    def _fail_all(self, error: Exception) -> None:
        """End every job; sessions that cannot be closed are left behind."""
        with self._changed:
            jobs = [*self._running, *self._waiting]
            self._running = []
            self._waiting.clear()
        for job in jobs:
            if job.session is not None:
                with contextlib.suppress(Exception):
                    job.session.close()
                job.session = None
            _failed(job, error)
        self._hand_over(jobs)

    def _leave(self) -> None:
        """Take out what was cancelled."""
        with self._changed:
            gone = [job for job in self._waiting if job.cancelled]
            if gone:
                self._waiting = deque(job for job in self._waiting if not job.cancelled)
        gone += [job for job in self._running if job.cancelled]
        for job in gone:
            job.cancel()
        self._release(gone)
        self._hand_over(gone)

    def _join(self) -> None:
        """Let in what there is room for, in the order of arrival."""
        done = []
        while len(self._running) < self._settings.running and (job := self._next_waiting()):
            if not job.done:  # as an answer of no tokens is
                self._begin(job)
            if job.done:
                done.append(job)
        self._release(done)
        self._hand_over(done)

    def _begin(self, job: Job) -> None:
        """Give a job its session. It runs already, so that whoever cancels all jobs sees it meanwhile."""
        try:
            reused = job.reuses_prefixes
            job.begin(self._model.prefixes.take(job.tokens) if reused else self._model.session())
        except Exception as error:
            _failed(job, error)

    def _next_waiting(self) -> Job | None:
        """The next job there is room for, which runs from now on."""
        with self._changed:
            for job in self._waiting:
                if not self._fits(job):
                    return None  # those behind it must not starve it
                if not self._shares_with_prompt(job):
                    self._waiting.remove(job)
                    self._running.append(job)
                    return job
        return None

    def _fits(self, job: Job) -> bool:
        needed = sum(len(other.tokens) + 1 for other in self._running) + len(job.tokens) + 1
        return needed <= self._most_tokens or not self._running

    def _shares_with_prompt(self, job: Job) -> bool:
        """Whether a running prompt is about to compute what `job` begins with: then `job` waits for it."""
        return job.reuses_prefixes and any(
            other.in_prompt
            and other.reuses_prefixes
            and common_prefix(other.tokens, job.tokens) - other.held >= LEAST_COPIED
            for other in self._running
        )

    def _step(self) -> None:
        """One pass. What fails in it ends the jobs of the pass, not the scheduler."""
        parts: list[tuple[Job, list[int]]] = []
        began = time.perf_counter()
        try:
            parts = self._plan()
            hidden, logits, wanted = self._forward(parts)
            tokens = self._choose([job for job, _ in parts], logits, wanted)
        except Exception as error:
            for job in [job for job, _ in parts] or self._running[:1]:
                _failed(job, error)
            self._finish()
            return
        row = logit = 0
        for (job, ids), count, token in zip(parts, wanted, tokens, strict=True):
            try:
                job.take(hidden[row : row + len(ids)], logits[logit : logit + count], token)
            except Exception as error:
                _failed(job, error)
            row, logit = row + len(ids), logit + count
        self._steps += 1
        self._size.learn(row, time.perf_counter() - began)
        self._finish()

    def _forward(self, parts: list[tuple[Job, list[int]]]) -> tuple[Float32, Float32, list[int]]:
        """Hidden states [rows, hidden], the logits wanted [n, vocab], and how many rows each job wants."""
        together = [Part(job.session, ids) for job, ids in parts if job.session is not None]
        hidden = forward_together(self._model, together, self._deliver_due)
        wanted = [job.logit_rows(len(ids)) for job, ids in parts]
        ends = accumulate(len(ids) for _, ids in parts)
        rows = [row for end, count in zip(ends, wanted, strict=True) for row in range(end - count, end)]
        if not rows:
            return hidden, np.empty((0, 0), np.float32), wanted
        chosen = hidden if len(rows) == len(hidden) else hidden[rows]
        return hidden, self._model.logits(chosen), wanted

    def _choose(self, jobs: list[Job], logits: Float32, wanted: list[int]) -> list[int | None]:
        """The jobs' next tokens where they can be chosen together, on all threads; None elsewhere."""
        samplers = [job.sampler if count == 1 else None for job, count in zip(jobs, wanted, strict=True)]
        together = [sampler for sampler in samplers if sampler is not None]
        if len(together) < 2:
            return [None] * len(jobs)
        if len(together) < len(logits):
            ends = accumulate(wanted)
            logits = logits[[end - 1 for end, sampler in zip(ends, samplers, strict=True) if sampler]]
        tokens = iter(self._model.choose(together, logits))
        return [None if sampler is None else next(tokens) for sampler in samplers]

    def _plan(self) -> list[tuple[Job, list[int]]]:
        """Who computes which tokens: everybody's next one, then prompts in the order of arrival."""
        decoding = [job for job in self._running if not job.in_prompt]
        draft = len(self._running) <= FEW_ANSWERS
        plan = [(job, job.rows(1, draft)) for job in decoding]
        left = self._size.rows(bool(decoding))
        for job in self._running:
            if job.in_prompt and left > 0:
                ids = job.rows(left, False)
                plan.append((job, ids))
                left -= len(ids)
        return self._within_memory(plan)

    def _within_memory(self, plan: list[tuple[Job, list[int]]]) -> list[tuple[Job, list[int]]]:
        """The plan without the newest jobs, where caches would outgrow their limit.

        Kept prefixes go first. A job that is sent back to the queue loses its cache and is computed again.
        """
        while len(plan) > 1 or self._idle_tokens():
            grown = sum(job.held for job in self._running) + sum(len(ids) for _, ids in plan)
            if grown + self._idle_tokens() <= self._most_tokens:
                break
            if self._model.prefixes.drop_oldest():
                continue
            newest = self._running[-1]
            self._send_back(newest)
            plan = [(job, ids) for job, ids in plan if job is not newest]
        return plan

    def _send_back(self, job: Job) -> None:
        self._preemptions += 1
        if job.outbox:
            self._hand_over([job])
        if job.session is not None:
            job.session.close()
            self._model.prefixes.give_back(job.session)
            job.session = None
        with self._changed:
            self._running.remove(job)
            self._waiting.appendleft(job)

    def _finish(self) -> None:
        """Hand over what is due after a step, and take out what is done.

        On a small machine the web server computes beside the engine, so it is woken for several tokens at
        once where they come faster than eyes see.
        """
        now = time.perf_counter()
        all_due = now - self._delivered_at >= self._settings.deliver_s
        due = [job for job in self._running if job.done or (job.outbox and (all_due or not job.heard_of))]
        done = [job for job in due if job.done]
        for job in done:
            seconds = now - (job.started or job.asked)
            self._seconds_per_job += 0.2 * (seconds - self._seconds_per_job)
        if all_due:
            self._delivered_at = now
        self._release(done)
        self._hand_over(due)

    def _hand_over(self, jobs: Sequence[Job]) -> None:
        """Deliver jobs when the next pass begins, or at once where there is none."""
        for job in jobs:
            job.heard_of = True
        self._due += [job for job in jobs if job not in self._due]

    def _deliver_due(self) -> None:
        """Called when a pass begins: the web server needs Python's lock, and the pass does without it."""
        if self._due:
            due, self._due = self._due, []
            self._deliver(due)

    def _release(self, jobs: Sequence[Job]) -> None:
        """Free the slots of jobs; what their caches hold is kept as prefixes for others."""
        for job in jobs:
            if job.session is not None:
                session, job.session = job.session, None
                if job.reuses_prefixes:
                    self._model.prefixes.give_back(session)
                else:
                    session.close()
        if jobs:
            with self._changed:
                self._running = [job for job in self._running if job not in jobs]

    def _idle_tokens(self) -> int:
        return sum(session.length for session in self._model.prefixes.kept)


def most_cached_tokens(model: Model, settings: BatchSettings) -> int:
    """Tokens all KV caches may hold together. Raises `InputError` where that is not one context."""
    per_token = kv_bytes_per_token(model.spec, model.kv)
    if settings.cache_bytes is not None:
        tokens = settings.cache_bytes // per_token
        if tokens < model.context:
            raise InputError(
                f"{settings.cache_bytes} bytes of cache hold {tokens} tokens, "
                f"one context of {model.context} must fit",
                hint="allow more cache, or a shorter context (--context)",
            )
        return tokens
    import psutil

    free = int(psutil.virtual_memory().available) // MEMORY_SHARE // per_token
    return max(model.context, min(free, settings.running * model.context))


def _failed(job: Job, error: Exception) -> Job:
    known = error if isinstance(error, PocketGLMError) else EngineError(f"unexpected error: {error!r}")
    job.outbox.append(known)
    job.done = True
    return job
