"""Error figures equal float64 arithmetic over the whole, however the rows are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketglm.errors import InputError
from pocketglm.quantize.error import ErrorFigures


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    original = random.standard_normal((40, 300)).astype(np.float32)
    return original, original + random.standard_normal((40, 300)).astype(np.float32) * np.float32(0.1)


def test_figures_are_those_of_float64(pair):
    original, stored = pair
    figures = ErrorFigures()
    figures.add(original, stored)
    a, b = original.astype(np.float64).ravel(), stored.astype(np.float64).ravel()
    assert figures.count == a.size
    assert figures.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-6)
    assert figures.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-6)
    assert figures.max_abs_error == np.abs(original - stored).max()
    assert figures.to_dict().keys() == {"relative", "cosine", "max_abs"}


def test_chunks_add_up(pair):
    original, stored = pair
    whole, streamed, merged = ErrorFigures(), ErrorFigures(), ErrorFigures()
    whole.add(original, stored)
    for start in range(0, 40, 7):
        chunk = slice(start, start + 7)
        streamed.add(original[chunk], stored[chunk])
        part = ErrorFigures()
        part.add(original[chunk], stored[chunk])
        merged.merge(part)
    assert streamed == merged
    assert streamed.count == whole.count
    assert streamed.relative == pytest.approx(whole.relative, rel=1e-12)
    assert streamed.cosine == pytest.approx(whole.cosine, rel=1e-12)


def test_exact_copy_and_zeros():
    figures = ErrorFigures()
    assert (figures.relative, figures.cosine) == (0.0, 1.0)
    zeros, ones = np.zeros((2, 5), np.float32), np.ones((2, 5), np.float32)
    figures.add(zeros, zeros)
    assert (figures.relative, figures.cosine) == (0.0, 1.0)
    figures.add(zeros, ones)
    assert (figures.relative, figures.cosine) == (math.inf, 0.0)
    exact = ErrorFigures()
    exact.add(ones, ones)
    assert (exact.relative, exact.cosine, exact.max_abs_error) == (0.0, 1.0, 0.0)


def test_strided_rows_are_taken(pair):
    original, stored = pair
    strided, copied = ErrorFigures(), ErrorFigures()
    strided.add(original.T, stored.T)
    copied.add(original.T.copy(), stored.T.copy())
    assert strided == copied


def test_shapes_must_agree(pair):
    original, stored = pair
    with pytest.raises(InputError, match=r"\[40, 300\].*\[39, 300\]"):
        ErrorFigures().add(original, stored[:-1])
