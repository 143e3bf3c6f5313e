"""Perplexity and divergence against straightforward sums over whole logits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from generate.tiny_models import BEGIN, CAUSAL, GMASK, SOP, write_tiny
from pocketglm.errors import InputError
from pocketglm.generate.model import Model, load
from pocketglm.generate.perplexity import evaluate, split_windows, text_beginning
from pocketglm.quantize.formats import WeightFormat


def text(length: int) -> list[int]:
    return np.random.default_rng(4).integers(0, 256, length).tolist()


def losses(model: Model, ids: list[int]) -> np.ndarray:
    """Negative log-likelihood of every token after the first."""
    with model.session() as session:
        logits = session.forward(ids).astype(np.float64)
    scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -scores[np.arange(len(ids) - 1), ids[1:]]


def test_one_window_counts_every_token_after_the_beginning(causal: Model) -> None:
    ids = text(50)
    result = evaluate(causal, ids)
    assert (result.tokens, result.windows) == (50, 1)
    assert result.perplexity == pytest.approx(math.exp(losses(causal, [BEGIN, *ids]).mean()), rel=1e-5)
    assert result.kl is None


def test_windows_count_every_token_once_with_the_stated_context(causal: Model) -> None:
    ids = text(100)
    result = evaluate(causal, ids, window=40, stride=15)
    total, counted = 0.0, 0
    for start in range(0, 100, 15):
        end = min(100, start + 40)
        total += losses(causal, [BEGIN, *ids[start:end]])[counted - start :].sum()
        counted = end
        if end == 100:
            break
    assert result.tokens == 100
    assert result.windows == 5
    assert result.perplexity == pytest.approx(math.exp(total / 100), rel=1e-5)


def test_a_prefixed_model_begins_each_window_with_its_mask_and_sop(prefixed: Model) -> None:
    assert text_beginning(prefixed) == [GMASK, SOP]
    ids = text(30)
    expected = losses(prefixed, [GMASK, SOP, *ids])[1:].mean()
    assert evaluate(prefixed, ids).perplexity == pytest.approx(math.exp(expected), rel=1e-5)


def test_without_a_beginning_the_first_token_is_not_counted(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "p", tokenizer=None, template=None)
    with load(path, "reference") as model:
        result = evaluate(model, text(20))
        assert result.tokens == 19
        assert result.perplexity == pytest.approx(math.exp(losses(model, text(20)).mean()), rel=1e-5)


def test_a_model_agrees_with_itself(causal: Model) -> None:
    result = evaluate(causal, text(60), reference=causal, window=32)
    assert result.kl == pytest.approx(0, abs=1e-12)
    assert result.top1 == 1
    assert result.reference_perplexity == pytest.approx(result.perplexity)


def test_divergence_and_agreement_against_whole_logits(causal: Model, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "p", CAUSAL, weight_format=WeightFormat(4, 32))
    ids = text(70)
    with load(path, "reference") as model:
        result = evaluate(model, ids, reference=causal)
        with model.session() as one, causal.session() as other:
            q, p = (s.forward([BEGIN, *ids])[:-1].astype(np.float64) for s in (one, other))
    p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (p, q))
    assert result.kl == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), rel=1e-4)
    assert result.kl > 1e-4
    assert result.top1 == pytest.approx((p.argmax(1) == q.argmax(1)).mean())


def test_progress_counts_up_to_the_text(causal: Model) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(causal, text(50), window=20, stride=20, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(20, 50), (40, 50), (50, 50)]


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(10, 4, 2), (10, 4, 4), (3, 8, 1), (9, 4, 3), (1, 5, None), (0, 4, 2)]
)
def test_windows_cover_a_text_exactly_once(length: int, window: int, stride: int | None) -> None:
    ids = list(range(100, 100 + length))
    counted = [i for part in split_windows(ids, [7], window, stride) for i in part.ids[part.first :]]
    assert counted == ids


def test_wrong_sizes_and_texts_are_refused(causal: Model, tmp_path: Path) -> None:
    for window, stride in ((1, 1), (2000, 5), (10, 0), (10, 11)):
        with pytest.raises(InputError, match="expected"):
            evaluate(causal, text(30), window=window, stride=stride)
    with pytest.raises(InputError, match="no token to predict"):
        evaluate(causal, [])
    other = write_tiny(tmp_path / "p", CAUSAL.__class__(**{**vars(CAUSAL), "vocab_size": 270}))
    with load(other, "reference") as model, pytest.raises(InputError, match="264 and 270 tokens"):
        evaluate(causal, text(5), reference=model)
