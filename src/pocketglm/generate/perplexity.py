"""How well a model predicts a text, and how far its predictions are from another model's.

Enters: token ids, one model or two. Leaves: perplexity; for two models also the mean Kullback-Leibler
divergence KL(reference || model) in nats a token and how often both prefer the same token. Logits are
made and dropped a few rows at a time.

Windows: each starts with the model's own beginning (`<s>`, or ChatGLM's `[gMASK] <sop>`), then holds
up to `window` tokens of the text. The next window starts `stride` tokens later. Every token of the
text counts once, in the first window that holds it; tokens that an earlier window has counted are
context only. Without a beginning the first token of the text is not counted: nothing predicts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError
from pocketglm.generate.model import Model

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""(tokens done, tokens in all)."""

DEFAULT_WINDOW = 1024
HEAD_ROWS = 32
"""Rows of logits held at once: 32 x 150528 float32 is 19 MB."""


@dataclass(frozen=True)
class Evaluation:
    """`perplexity` is exp of the mean negative log-likelihood a token; `kl` is in nats a token,
    `top1` a fraction. The last three are None where there is nothing to compare with."""

    tokens: int
    windows: int
    perplexity: float
    reference_perplexity: float | None = None
    kl: float | None = None
    top1: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Window:
    """`ids` goes through the model; the tokens from index `first` on count."""

    ids: list[int]
    first: int


@dataclass
class _Sums:
    """Running totals over counted tokens."""

    tokens: int = 0
    loss: float = 0.0
    reference_loss: float = 0.0
    kl: float = 0.0
    agreements: int = 0


def evaluate(
    model: Model,
    token_ids: Sequence[int],
    *,
    reference: Model | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate `model` on a text, against `reference` if given. See the top of this file."""
    if reference is not None and reference.spec.vocab_size != model.spec.vocab_size:
        raise InputError(
            f"the two models have {model.spec.vocab_size} and {reference.spec.vocab_size} tokens",
            hint="compare with the checkpoint that the package was made from",
        )
    beginning = text_beginning(model)
    sums, windows, done = _Sums(), 0, 0
    for part in split_windows(token_ids, beginning, _window_size(model, beginning, window), stride):
        _add_window(sums, part, model, reference)
        windows += 1
        done += len(part.ids) - part.first
        if progress:
            progress(done, len(token_ids))
    if not sums.tokens:
        raise InputError("the text has no token to predict", hint="give a longer text")
    return _result(sums, windows, reference is not None)


def text_beginning(model: Model) -> list[int]:
    """What stands before every window: what the tokenizer puts around an empty prompt."""
    if model.spec.prefix_tokens is not None:
        return [model.spec.prefix_tokens.gmask, model.spec.prefix_tokens.sop]
    return model.tokenizer.encode("", prompt=True) if model.has_tokenizer else []


def split_windows(
    token_ids: Sequence[int], beginning: Sequence[int], window: int, stride: int | None = None
) -> Iterator[Window]:
    """Windows of a text; `window` is in tokens of the text, `stride` is half of it if None."""
    step = max(1, window // 2) if stride is None else stride
    if not 0 < step <= window:
        raise InputError(f"stride is {step}, expected 1 to the window of {window}")
    counted = 0
    for start in range(0, len(token_ids), step):
        end = min(start + window, len(token_ids))
        yield Window([*beginning, *token_ids[start:end]], max(1, len(beginning) + counted - start))
        counted = end
        if end == len(token_ids):
            return


def _window_size(model: Model, beginning: Sequence[int], window: int | None) -> int:
    room = model.context - len(beginning)
    size = min(DEFAULT_WINDOW, room) if window is None else window
    if not 2 <= size <= room:
        raise InputError(f"window is {size}, expected 2 to {room}")
    return size


def _add_window(sums: _Sums, part: Window, model: Model, reference: Model | None) -> None:
    hidden = _hidden(model, part.ids)
    other = None if reference is None else _hidden(reference, part.ids)
    # Row i predicts token i + 1.
    for start in range(part.first, len(part.ids), HEAD_ROWS):
        targets = np.array(part.ids[start : start + HEAD_ROWS])
        rows = slice(start - 1, start - 1 + len(targets))
        scores = log_softmax(model.logits(hidden[rows]))
        picked = np.arange(len(targets)), targets
        sums.tokens += len(targets)
        sums.loss -= float(scores[picked].sum())
        if reference is not None and other is not None:
            truth = log_softmax(reference.logits(other[rows]))
            sums.reference_loss -= float(truth[picked].sum())
            sums.kl += float((np.exp(truth) * (truth - scores)).sum())
            sums.agreements += int((truth.argmax(1) == scores.argmax(1)).sum())


def _hidden(model: Model, ids: list[int]) -> Float32:
    with model.session() as session:
        return session.hidden(ids)


def _result(sums: _Sums, windows: int, compared: bool) -> Evaluation:
    count = sums.tokens
    perplexity = math.exp(sums.loss / count)
    if not compared:
        return Evaluation(count, windows, perplexity)
    reference = math.exp(sums.reference_loss / count)
    return Evaluation(count, windows, perplexity, reference, sums.kl / count, sums.agreements / count)


def log_softmax(logits: Float32) -> Float64:
    """Natural logarithms of the probabilities, float64 [rows, vocab]."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
    return shifted
