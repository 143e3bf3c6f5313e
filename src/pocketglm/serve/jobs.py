"""What the scheduler runs: answers, and texts to embed.

Enters: a request, then the hidden states or logits of its rows, step after step. Leaves: pieces of the
answer, or one vector. A job knows its tokens; what its session holds of them is computed already, the
rest is due. So a job whose session was taken away is only due again from the start.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.contract import Float32
from pocketglm.engine.reference.block import apply_norm
from pocketglm.generate.lookup import DraftLength, NgramIndex
from pocketglm.generate.model import Model
from pocketglm.generate.sampler import Sampler
from pocketglm.generate.session import Session
from pocketglm.generate.stop import StopMatcher
from pocketglm.generate.stream import Statistics
from pocketglm.serve.answer_request import AnswerPiece, AnswerRequest, FinishReason, TokenLogprobs

SLIDE_KEEPS = 0.5
"""Of the context, after the oldest text was forgotten: half must be computed again, for half a context
of new tokens."""

SHORTEST_TAIL = 16
"""Rows: a prompt is not cut so that fewer are left. An engine may compute a few rows by other kernels than
many, so a short tail could differ, in its last bits, from the same rows computed with the whole."""


class Job(ABC):
    """A sequence in the batch. Only the scheduler's thread calls its methods."""

    reuses_prefixes = True
    sampler: Sampler | None = None
    """Chooses the next token from logits as they are; None where more is to be done with them."""

    def __init__(self, model: Model, prompt: Sequence[int]) -> None:
        self.model = model
        self.tokens = list(prompt)
        self.session: Session | None = None
        self.statistics = Statistics(prompt_tokens=len(prompt))
        self.outbox: list[Any] = []
        self.heard_of = False  # something was delivered
        self.done = False
        self.cancelled = False
        self.asked = time.perf_counter()
        self.started: float | None = None

    @property
    def held(self) -> int:
        """Positions in the session's cache."""
        return 0 if self.session is None else self.session.length

    @property
    def due(self) -> int:
        """Tokens to be computed before the job can go on."""
        return len(self.tokens) - self.held

    @property
    def in_prompt(self) -> bool:
        return self.due > 1

    def begin(self, session: Session) -> None:
        """Join the batch, for the first time or again."""
        self.session = session
        if self.started is None:
            self.started = time.perf_counter()
            self.statistics.reused_tokens = session.length

    def rows(self, most: int, draft: bool) -> list[int]:
        """The tokens of the next step, about `most` at most.

        A bidirectional context goes in one piece, however long it is. With `draft`, guesses may follow
        a single token that is due.
        """
        held = self.held
        count = max(most, self._least_rows() if held == 0 else 1)
        if most > 1 and self.due - count < SHORTEST_TAIL:
            count = self.due
        return self.tokens[held : held + count]

    @abstractmethod
    def logit_rows(self, count: int) -> int:
        """Of how many last rows, of `count` just computed, logits are wanted."""

    @abstractmethod
    def take(self, hidden: Float32, logits: Float32, token: int | None) -> None:
        """Go on with the last block's output of this step's rows and the logits that were wanted.

        `token` was chosen from them by `sampler` already, unless it is None.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Give up; whatever is in the outbox still goes out."""

    def _least_rows(self) -> int:
        prefix = self.model.spec.prefix_tokens
        return 1 if prefix is None else self.tokens.index(prefix.sop) + 1


class AnswerJob(Job):
    """One answer in the making; its outbox fills with `AnswerPiece`s."""

    def __init__(self, model: Model, request: AnswerRequest) -> None:
        super().__init__(model, request.prompt)
        self.request = request
        self.limit = request.most_tokens(model.context)
        self.generated: list[int] = []
        settings, ends = request.settings, model.defaults.end_tokens
        self._ends = ends
        self._sampler = Sampler(
            settings, model.spec.vocab_size, request.prompt, ends if settings.ignore_eos else ()
        )
        self._decoder = (
            model.tokenizer.stream(skip_special=not request.show_special) if model.has_tokenizer else None
        )
        self._matcher = StopMatcher(settings.stop)
        self._grammar = None if request.grammar is None else request.grammar.fork()
        self.sampler = None if self._grammar else self._sampler
        self._draft: list[int] = []
        self._index: NgramIndex | None = None
        self._indexed = 0
        self._length = DraftLength(model.lookup)
        self._first_token_at = 0.0
        if self.limit <= 0:
            self._finish("length")

    def rows(self, most: int, draft: bool) -> list[int]:
        self._draft = []
        ids = super().rows(most, draft)
        if draft and self.generated and self.due == 1 and self.model.lookup:
            self._draft = self._guesses()
        return [*ids, *self._draft]

    def logit_rows(self, count: int) -> int:
        return 1 + len(self._draft) if self.due <= 0 else 0

    def take(self, hidden: Float32, logits: Float32, token: int | None) -> None:
        if len(logits) == 0:
            return
        now = time.perf_counter()
        if not self.generated:
            self.statistics.prefill_s = now - (self.started or now)
            self._first_token_at = now
        self.statistics.decode_s = now - self._first_token_at
        accepted = self._take_rows(logits, token)
        if self._draft:
            self._judge(accepted)
        if self.session is not None and self.held > len(self.tokens) - 1:
            self.session.truncate(len(self.tokens) - 1)  # guesses that did not come true
        if not self.done and len(self.tokens) >= self.model.context:
            self._slide()

    def cancel(self) -> None:
        if not self.done:
            self._finish("cancelled")

    def _take_rows(self, logits: Float32, chosen: int | None) -> int:
        """Choose a token from every row until one differs from its guess. Returns the guesses that held."""
        for place, row in enumerate(logits):
            token = self._next(row, chosen)
            if self.done or place == len(self._draft) or self._draft[place] != token:
                return place
        return len(self._draft)

    def _next(self, row: Float32, chosen: int | None) -> int | None:
        """Choose, count and give out one token; None at an end token."""
        token = self._choose(row) if chosen is None else chosen
        if token in self._ends:
            self._finish("stop")
            return None
        if self._grammar is not None:
            self._grammar.accept(token)
        self.tokens.append(token)
        self.generated.append(token)
        self.statistics.generated_tokens += 1
        text = self._matcher.feed(self._decoder.push(token)) if self._decoder else ""
        self.outbox.append(AnswerPiece(token, text, self._logprobs(row, token)))
        if reason := self._reason_to_stop():
            self._finish(reason)
        return token

    def _choose(self, row: Float32) -> int:
        return self._sampler.next(row if self._grammar is None else self._grammar.masked(row))

    def _reason_to_stop(self) -> FinishReason | None:
        if self._matcher.matched is not None or (self._grammar is not None and self._grammar.finished):
            return "stop"
        return "length" if len(self.generated) >= self.limit else None

    def _finish(self, reason: FinishReason) -> None:
        self.done = True
        rest = ""
        if self._decoder is not None and self._matcher.matched is None:
            rest = self._matcher.feed(self._decoder.finish())
            if self._matcher.matched is None:
                rest += self._matcher.flush()
        self.outbox.append(AnswerPiece(None, rest, None, reason))

    def _logprobs(self, row: Float32, token: int) -> TokenLogprobs | None:
        top = self.request.top_logprobs
        if top is None:
            return None
        shifted = row.astype(np.float64) - float(row.max())
        shifted -= np.log(np.exp(shifted).sum())
        best = np.argpartition(-shifted, top)[:top] if top else np.empty(0, np.int64)
        best = best[np.argsort(-shifted[best], kind="stable")]
        return TokenLogprobs(token, float(shifted[token]), tuple((int(i), float(shifted[i])) for i in best))

    def _guesses(self) -> list[int]:
        """Tokens that may follow, from what the text has said before; see `generate/lookup.py`."""
        if self._index is None:
            self._index, self._indexed = NgramIndex(), 0
        for token in self.tokens[self._indexed :]:
            self._index.append(token)
        self._indexed = len(self.tokens)
        room = min(self.limit - len(self.generated) - 1, self.model.context - len(self.tokens))
        size = min(self._length.next(), room)
        return self._index.continuation(size) if size > 0 else []

    def _judge(self, accepted: int) -> None:
        self._length.judge(len(self._draft), accepted)
        self.statistics.drafted_tokens += len(self._draft)
        self.statistics.accepted_tokens += accepted

    def _slide(self) -> None:
        """Forget the oldest text but the first token, so that half of the context is free again."""
        keep = int(self.model.context * SLIDE_KEEPS)
        self.tokens = [self.tokens[0], *self.tokens[-(keep - 1) :]]
        self._index = None
        if self.session is not None:
            self.session.truncate(0)


class EmbeddingJob(Job):
    """One text to embed; its outbox gets one vector, float32 [hidden], of length one."""

    reuses_prefixes = False  # the hidden states of what a cache holds are gone

    def __init__(self, model: Model, prompt: Sequence[int]) -> None:
        super().__init__(model, prompt)
        self._sum: NDArray[np.float64] = np.zeros(model.spec.hidden_size)

    def logit_rows(self, count: int) -> int:
        return 0

    def take(self, hidden: Float32, logits: Float32, token: int | None) -> None:
        self._sum += apply_norm(self.model.spec, hidden, self.model.package.head().vector, "norm").sum(
            axis=0, dtype=np.float64
        )
        if self.due == 0:
            norm = float(np.linalg.norm(self._sum))
            self.outbox.append((self._sum / norm if norm else self._sum).astype(np.float32))
            self.done = True

    def begin(self, session: Session) -> None:
        super().begin(session)
        self._sum[:] = 0

    def cancel(self) -> None:
        self.done = True
