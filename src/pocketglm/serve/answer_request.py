"""What an answer is asked for with, and the pieces it comes in.

Enters: token ids and settings, checked against a model. Leaves: frozen values that pass between the
threads: requests into the batch, pieces out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketglm.engine.positions import PositionTracker
from pocketglm.errors import ContextError, InputError
from pocketglm.generate.model import Model
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.serve.grammar import Grammar

FinishReason = Literal["stop", "length", "cancelled"]

MOST_TOP_LOGPROBS = 20


@dataclass(frozen=True)
class AnswerRequest:
    """One answer to one prompt.

    `top_logprobs` is how many of the most probable tokens to report at every place, 0 for the chosen
    one only, None for no probabilities at all. `slide` forgets the oldest half of the text where the
    context is full, instead of ending there. `show_special` gives out special tokens' texts too.
    """

    prompt: tuple[int, ...]
    settings: SamplingSettings
    top_logprobs: int | None = None
    grammar: Grammar | None = None
    slide: bool = False
    show_special: bool = False

    def check(self, model: Model) -> None:
        """Raises `InputError` where the model cannot answer this."""
        check_tokens(model, self.prompt)
        room = model.context if self.settings.max_length is None else self.settings.max_length
        if len(self.prompt) >= min(room, model.context):
            raise ContextError(
                f"the prompt has {len(self.prompt)} tokens, prompt and answer may have "
                f"{min(room, model.context)}",
                hint="shorten the prompt, or ask for a sliding window",
            )
        if self.settings.stop and not model.has_tokenizer:
            raise InputError("stop strings need a tokenizer, and this package has none")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS:
            raise InputError(f"top_logprobs is {self.top_logprobs}, expected 0 to {MOST_TOP_LOGPROBS}")
        if outside := [t for t in self.settings.logit_bias if t >= model.spec.vocab_size]:
            raise InputError(f"logit_bias names token {outside[0]}, the model has {model.spec.vocab_size}")

    def most_tokens(self, context: int) -> int:
        """Tokens the answer may have. Without a limit a sliding window has room for one context."""
        room = min(self.settings.max_length or context, context) - len(self.prompt)
        wanted = self.settings.max_new_tokens
        if self.slide:
            return context if wanted is None else wanted
        return room if wanted is None else min(room, wanted)


def check_tokens(model: Model, token_ids: tuple[int, ...]) -> None:
    """Raises `InputError` where ids are no tokens of the model or make no prompt for it."""
    if not token_ids:
        raise InputError("the prompt has no tokens", hint="give some text")
    vocabulary = model.spec.vocab_size
    if wrong := [token for token in token_ids if not 0 <= token < vocabulary]:
        raise InputError(f"token id {wrong[0]} is outside the vocabulary of {vocabulary}")
    if len(token_ids) > model.context:
        raise ContextError(f"the text has {len(token_ids)} tokens, the context holds {model.context}")
    if model.spec.prefix_tokens is not None:
        PositionTracker(model.spec).advance(token_ids)  # finds <sop> and its mask token, or says so


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities under the model's own logits, before any setting.

    `top` are the most probable tokens, the first the most probable.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class AnswerPiece:
    """One step of an answer. `text` may be empty while a character or a stop string is incomplete.

    The last piece has a `finish_reason`; it may carry text that was held back, and no token.
    """

    token: int | None
    text: str
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
