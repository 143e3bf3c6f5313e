"""The generation loop: a prompt goes in, pieces of text come out as they are made.

Enters: a session, the prompt's token ids, sampling settings. Leaves: pieces (token id, text), a
reason for the end, and timings. Whenever it ends, the session holds the prompt and the tokens that
were given out (the last one may be missing: it is computed only when a next one is wanted).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError
from pocketglm.generate.detokenizer import StreamDecoder
from pocketglm.generate.lookup import LookupDecoder
from pocketglm.generate.sampler import Sampler, SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.generate.stop import StopMatcher

Float32 = NDArray[np.float32]
FinishReason = Literal["stop", "length", "interrupted"]

MOST_LOOKUP = 64
"""Tokens guessed ahead at most: their logits are 64 x 150528 float32, 39 MB."""


@dataclass(frozen=True)
class Piece:
    """One step. `text` may be empty while a character or a stop string is incomplete; the last piece
    may carry text that was held back and no token. `logprob` is the natural logarithm of the token's
    probability under the model's own logits, before any sampling setting."""

    token: int | None
    text: str
    logprob: float | None = None


@dataclass
class Statistics:
    """Counts and seconds of one answer. The first token comes out of the prefill.

    `drafted_tokens` were guessed by prompt lookup, `accepted_tokens` of them were the model's own choice.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tps(self) -> float:
        """Prompt tokens computed per second, those found in the cache left out."""
        return _rate(self.prompt_tokens - self.reused_tokens, self.prefill_s)

    @property
    def decode_tps(self) -> float:
        """Tokens per second after the first."""
        return _rate(self.generated_tokens - 1, self.decode_s)

    @property
    def time_to_first_token_s(self) -> float:
        return self.prefill_s

    def to_dict(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "generated_tokens": self.generated_tokens,
            "time_to_first_token_s": round(self.time_to_first_token_s, 4),
            "prefill_tps": round(self.prefill_tps, 2),
            "decode_tps": round(self.decode_tps, 2),
            "drafted_tokens": self.drafted_tokens,
            "accepted_tokens": self.accepted_tokens,
        }


class Generation(Iterator[Piece]):
    """An answer in the making. Iterate over it for its pieces; `stop()` ends it from any thread.

    `lookup` is how many tokens prompt lookup may guess ahead; meanwhile the session may hold guesses.
    """

    def __init__(
        self,
        session: Session,
        prompt: Sequence[int],
        settings: SamplingSettings,
        end_tokens: Iterable[int] = (),
        decoder: StreamDecoder | None = None,
        logprobs: bool = False,
        lookup: int = 0,
    ) -> None:
        check_lookup(lookup)
        if not prompt:
            raise InputError("the prompt has no tokens", hint="give some text")
        session.check_fits(len(prompt) + 1)
        if settings.max_length is not None and len(prompt) >= settings.max_length:
            raise InputError(
                f"the prompt has {len(prompt)} tokens, prompt and answer may have {settings.max_length}",
                hint="this is the model's own limit; set max_new_tokens (--max-tokens) to replace it",
            )
        self.session = session
        self.settings = settings
        self.statistics = Statistics(prompt_tokens=len(prompt))
        self.finish_reason: FinishReason | None = None
        self.tokens: list[int] = []
        self.text = ""
        self._prompt = list(prompt)
        self._end_tokens = frozenset(end_tokens)
        self._decoder = decoder
        self._logprobs = logprobs
        self._matcher = StopMatcher(settings.stop)
        self._stopped = threading.Event()
        banned = self._end_tokens if settings.ignore_eos else ()
        self._sampler = Sampler(settings, session.spec.vocab_size, prompt, banned)
        self._lookup = LookupDecoder(session, self._prompt, lookup)
        self._steps = self._run()

    def __next__(self) -> Piece:
        return next(self._steps)

    def stop(self) -> None:
        """End the answer before its next token. Safe to call from any thread or signal handler."""
        self._stopped.set()

    def close(self) -> None:
        """Give the answer up."""
        self._steps.close()

    def finish(self) -> Generation:
        """Run to the end and return self."""
        for _ in self:
            pass
        return self

    def texts(self) -> Iterator[str]:
        """Only the text, in pieces that are not empty."""
        return (piece.text for piece in self if piece.text)

    def _run(self) -> Generator[Piece, None, None]:
        try:
            logits = self._prefill()
            while (reason := self._reason_to_stop()) is None and logits is not None:
                token = self._sampler.next(logits)
                if token in self._end_tokens:
                    reason = "stop"
                    break
                yield self._piece(token, logits)
                logits = self._decode(token)
            self.finish_reason = reason
            if rest := self._rest():
                yield Piece(None, rest)
        finally:
            self.finish_reason = self.finish_reason or "interrupted"
            self._lookup.settle()
            self._count_drafts()

    def _prefill(self) -> Float32 | None:
        """Logits [vocab] after the prompt, or None if stopped on the way."""
        began = time.perf_counter()
        start = self.statistics.reused_tokens = self.session.reuse(self._prompt)
        logits: Float32 | None = None
        for piece in self.session.chunks(self._prompt[start:]):
            if self._stopped.is_set():
                return None
            logits = self.session.forward(piece, last_only=True)[-1]
        self.statistics.prefill_s = time.perf_counter() - began
        return logits

    def _decode(self, token: int) -> Float32 | None:
        """Logits after `token`, or None where no next token is wanted."""
        if self._reason_to_stop() is not None:
            return None
        began = time.perf_counter()
        logits = self._lookup.logits(token, self._limit - len(self.tokens) - 1)
        self.statistics.decode_s += time.perf_counter() - began
        return logits

    def _count_drafts(self) -> None:
        self.statistics.drafted_tokens = self._lookup.drafted
        self.statistics.accepted_tokens = self._lookup.accepted

    def _reason_to_stop(self) -> FinishReason | None:
        if self._matcher.matched is not None:
            return "stop"
        if self._stopped.is_set():
            return "interrupted"
        return "length" if len(self.tokens) >= self._limit else None

    @property
    def _limit(self) -> int:
        """Most tokens the answer may have."""
        context = self.session.model.context
        room = min(self.settings.max_length or context, context) - len(self._prompt)
        wanted = self.settings.max_new_tokens
        return room if wanted is None else min(room, wanted)

    def _piece(self, token: int, logits: Float32) -> Piece:
        self.tokens.append(token)
        self.statistics.generated_tokens += 1
        text = self._matcher.feed(self._decoder.push(token)) if self._decoder else ""
        self.text += text
        return Piece(token, text, log_probability(logits, token) if self._logprobs else None)

    def _rest(self) -> str:
        """Text still held back by the decoder or the stop matcher, empty after a stop string."""
        if self._decoder is None or self._matcher.matched is not None:
            return ""
        rest = self._matcher.feed(self._decoder.finish())
        if self._matcher.matched is None:
            rest += self._matcher.flush()
        self.text += rest
        return rest


def check_lookup(lookup: object) -> None:
    """Raises `InputError` for a number of guessed tokens that is none."""
    if not isinstance(lookup, int) or isinstance(lookup, bool) or not 0 <= lookup <= MOST_LOOKUP:
        raise InputError(f"lookup is {lookup!r}, expected an integer from 0 (off) to {MOST_LOOKUP}")


def log_probability(logits: Float32, token: int) -> float:
    """Natural logarithm of softmax(logits)[token]."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[token] - np.log(np.exp(shifted).sum()))


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
