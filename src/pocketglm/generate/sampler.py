"""From one row of logits to the next token.

Enters: float32 logits [vocab] and the tokens so far. Leaves: a token id. The order of operations is
that of the transformers library: logit bias, repetition penalty, presence and frequency penalties,
temperature, top-k, top-p, min-p. Draws come from NumPy's PCG64: one uniform number a token, turned
into a token by the inverse of the cumulative distribution in the order of token ids, so that a seed
gives the same tokens wherever the logits are the same. The native engine's sampler does the same in
C++ without copying the logits, and is used where it was built; the NumPy code here is its reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import EngineError, InputError

if TYPE_CHECKING:
    from pocketglm.engine.contract import Head
    from pocketglm.engine.native import _engine

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

Choose: TypeAlias = "Callable[[Sequence[_engine.Sampler], Float32, Sequence[float]], list[int]]"
"""The native head's `choose`."""

TOP_P_FIRST_GUESS = 256
"""How many of the most probable tokens top-p looks at first; most distributions need fewer."""

_NO_MAXIMUM = "verify the package with `pocketglm verify`; if it is sound, the engine has a bug"


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are chosen and when to stop. Checked once, here: a wrong value raises `InputError`.

    `temperature` 0 is greedy: the most probable token, the lowest id where several tie. `top_k` 0,
    `top_p` 1, `min_p` 0 and the penalties' defaults switch that step off. The repetition penalty
    counts the prompt and the answer; presence and frequency penalties count the answer only, as
    OpenAI's interface defines them. `max_new_tokens` limits the answer, `max_length` prompt and
    answer together; None goes on to the end of the context.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, 0, 100)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _check_number("presence_penalty", self.presence_penalty, -100, 100)
        _check_number("frequency_penalty", self.frequency_penalty, -100, 100)
        _check_count("top_k", self.top_k, 0)
        for name in ("seed", "max_new_tokens", "max_length"):
            if (value := getattr(self, name)) is not None:
                _check_count(name, value, 0)
        if isinstance(self.stop, str):
            raise InputError("stop must be a list of strings, found one string")
        object.__setattr__(self, "stop", tuple(self.stop))
        if not all(isinstance(text, str) and text for text in self.stop):
            raise InputError("stop strings must be non-empty strings")
        for token, bias in self.logit_bias.items():
            _check_count("a token id in logit_bias", token, 0)
            if not isinstance(bias, (int, float)) or math.isnan(bias) or bias == math.inf:
                raise InputError(f"logit_bias of token {token} is {bias!r}, expected a number below infinity")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @classmethod
    def of(cls, defaults: Mapping[str, Any] | None = None, **overrides: Any) -> SamplingSettings:
        """Settings from a model's `generation.json`, with `overrides` that are not None on top.

        Keys of `defaults` that are no sampling settings (end tokens, say) are left to others; an
        unknown override raises `InputError`.
        """
        names = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(overrides) - names):
            raise InputError(
                f"unknown sampling setting: {', '.join(unknown)}", hint=f"known: {', '.join(sorted(names))}"
            )
        values = {
            name: value for name, value in (defaults or {}).items() if name in names and value is not None
        }
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)


class Sampler:
    """Chooses tokens for one sequence; remembers what the penalties need.

    `banned` ids (the end tokens, under `ignore_eos`) are never chosen. `native` False: NumPy alone.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        vocab_size: int,
        prompt: Iterable[int] = (),
        banned: Iterable[int] = (),
        native: bool = True,
    ) -> None:
        self.settings = settings
        self._vocab_size = vocab_size
        self._seen = np.zeros(vocab_size, bool)
        self._seen[self._ids(prompt)] = True
        self._generated: dict[int, int] = {}
        self._banned = self._ids(banned)
        self._bias_ids = self._ids(settings.logit_bias)
        self._bias = np.array(list(settings.logit_bias.values()), np.float32)
        self._random = np.random.Generator(np.random.PCG64(settings.seed))
        self._native = self._make_native() if native else None

    def next(self, logits: Float32) -> int:
        """Choose a token from `logits` [vocab] and count it. Raises `EngineError` for NaN logits."""
        token = self._choose(logits) if self._native is None else self._choose_natively(self._native, logits)
        self._count(token)
        return token

    def accept(self, token: int) -> None:
        """Count a token of the answer that was chosen elsewhere."""
        if self._native is not None:
            self._native.accept(token)
        self._count(token)

    @staticmethod
    def next_together(head: Head, samplers: Sequence[Sampler], logits: Float32) -> list[int | None]:
        """As `next` of each sampler with its row of `logits`, on all threads of a head that can `choose`.

        None is left to `next`: for other heads, and where a row has something wrong.
        """
        choose: Choose | None = getattr(head, "choose", None)
        natives = [sampler._native for sampler in samplers if sampler._native is not None]
        if choose is None or len(natives) < len(samplers):
            return [None] * len(samplers)
        uniforms = [sampler._uniform() for sampler in samplers]
        found = choose(natives, np.ascontiguousarray(logits), uniforms)
        for sampler, token in zip(samplers, found, strict=True):
            if token >= 0:
                sampler._count(token)
        return [token if token >= 0 else None for token in found]

    def _uniform(self) -> float:
        return 0.0 if self.settings.greedy else self._random.random()

    def _choose(self, logits: Float32) -> int:
        scores = self.penalized(logits)
        largest = scores.max()  # NaN where any score is
        if not np.isfinite(largest):
            raise EngineError(f"the model's logits have no finite maximum: it is {largest}", hint=_NO_MAXIMUM)
        return int(np.argmax(scores)) if self.settings.greedy else self._draw(scores)

    def _choose_natively(self, native: _engine.Sampler, logits: Float32) -> int:
        try:
            return native.next(np.ascontiguousarray(logits, np.float32), self._uniform())
        except RuntimeError as error:
            raise EngineError(str(error), hint=_NO_MAXIMUM) from None

    def _make_native(self) -> _engine.Sampler | None:
        """The C++ sampler in this one's state, or None where the native engine was not built."""
        try:
            from pocketglm.engine.native import _engine
        except ImportError:
            return None
        settings = self.settings
        native = _engine.Sampler(
            settings.temperature,
            min(settings.top_k, self._vocab_size),
            *(settings.top_p, settings.min_p),
            *(settings.repetition_penalty, settings.presence_penalty, settings.frequency_penalty),
            self._vocab_size,
        )
        native.see(np.flatnonzero(self._seen).astype(np.int32))
        native.ban(self._banned.astype(np.int32))
        native.bias(self._bias_ids.astype(np.int32), self._bias)
        return native

    def _count(self, token: int) -> None:
        self._seen[token] = True
        self._generated[token] = self._generated.get(token, 0) + 1

    def penalized(self, logits: Float32) -> Float32:
        """Logits after bias and penalties (the same array where nothing applies)."""
        settings = self.settings
        scores = logits
        if self._bias_ids.size or self._banned.size:
            scores = scores.copy()
            scores[self._bias_ids] += self._bias
            scores[self._banned] = -np.inf
        if settings.repetition_penalty != 1.0:
            ids = np.flatnonzero(self._seen)
            seen, penalty = scores[ids], np.float32(settings.repetition_penalty)
            scores = scores.copy()
            scores[ids] = np.where(seen < 0, seen * penalty, seen / penalty)
        if self._generated and (settings.presence_penalty or settings.frequency_penalty):
            ids = np.fromiter(self._generated.keys(), np.int64)
            counts = np.fromiter(self._generated.values(), np.float32)
            scores = scores.copy()
            scores[ids] -= settings.presence_penalty + settings.frequency_penalty * counts
        return scores

    def distribution(self, logits: Float32) -> tuple[Int64, Float64]:
        """Ids that may be drawn, ascending, and their probabilities (temperature above 0)."""
        return self._filter(self.penalized(logits))

    def _draw(self, scores: Float32) -> int:
        ids, probabilities = self._filter(scores)
        cumulative = np.cumsum(probabilities)
        place = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(ids[min(int(place), len(ids) - 1)])

    def _filter(self, scores: Float32) -> tuple[Int64, Float64]:
        """Temperature, top-k, top-p, min-p. Sorts no more than it must."""
        settings = self.settings
        ids = np.arange(len(scores))
        largest = float(scores.max())
        if 0 < settings.top_k < len(scores):
            least = np.partition(scores, -settings.top_k)[-settings.top_k]
            ids = np.flatnonzero(scores >= least)  # ties at the edge stay, as in transformers
            scores = scores[ids]
        # Divided after the subtraction, so that no temperature, however low, makes an infinity
        weights = np.exp((scores.astype(np.float64) - largest) / settings.temperature)
        if settings.top_p < 1:
            kept = top_p_mask(weights / weights.sum(), settings.top_p)
            ids, weights = ids[kept], weights[kept]
        if settings.min_p > 0:
            kept = weights >= settings.min_p * weights.max()
            ids, weights = ids[kept], weights[kept]
        return ids, weights / weights.sum()

    def _ids(self, tokens: Iterable[int]) -> Int64:
        ids = np.array(sorted(set(tokens)) if not isinstance(tokens, Mapping) else list(tokens), np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self._vocab_size):
            wrong = int(ids[(ids < 0) | (ids >= self._vocab_size)][0])
            raise InputError(f"token id {wrong} is outside the vocabulary of {self._vocab_size}")
        return ids


def top_p_mask(probabilities: Float64, top_p: float) -> Int64:
    """Indices, ascending, of the smallest set of most probable entries whose sum reaches `top_p`.

    An entry stays where the entries above it sum to less than `top_p`; the largest always stays, and
    of equal ones the first. Sorts only the top of the distribution, growing the part until it reaches
    `top_p`.
    """
    size, count = TOP_P_FIRST_GUESS, len(probabilities)
    while True:
        least = np.partition(probabilities, -size)[-size] if size < count else 0.0
        top = np.flatnonzero(probabilities >= least)
        top = top[np.argsort(-probabilities[top], kind="stable")]
        above = np.cumsum(probabilities[top]) - probabilities[top]
        kept = int(np.searchsorted(above, top_p, side="left"))
        if kept < len(top) or len(top) == count:
            return np.sort(top[: max(1, kept)])
        size *= 8


def _check_number(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{name} is {value!r}, expected a number from {low:g} to {high:g}")


def _check_count(name: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{name} is {value!r}, expected an integer of {low} or more")
