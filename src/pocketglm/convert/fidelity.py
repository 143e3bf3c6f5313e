"""Figures that say how close the stored model is to the original, made during conversion.

All figures are rounded to `DIGITS` significant digits, so that an interrupted conversion gives the
same report as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.quantize.error import ErrorFigures

Float32 = NDArray[np.float32]
DIGITS = 4


def rounded(value: float) -> float | None:
    """None where there is no figure: an error relative to nothing is infinite, and JSON has no infinity."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def compare(original: Float32, stored: Float32) -> dict[str, float | None]:
    """Relative error |stored - original| / |original| and cosine, over all elements of [rows, n]."""
    figures = ErrorFigures()
    figures.add(original, stored)
    return {"relative_error": rounded(figures.relative), "cosine": rounded(figures.cosine)}


def weights_report(errors: Mapping[str, ErrorFigures]) -> dict[str, Any]:
    """Error of every linear layer's weights."""
    return {
        name: {"relative_error": rounded(e.relative), "max_error": rounded(e.max_abs_error)}
        for name, e in errors.items()
    }


def block_report(errors: Mapping[str, ErrorFigures], hidden: Float32) -> dict[str, Any]:
    """Report of one block from the probe's hidden states [3, rows, hidden] after it."""
    return {
        "output": compare(hidden[0], hidden[1]),
        "accumulated": compare(hidden[0], hidden[2]),
        "weights": weights_report(errors),
    }


def head_report(errors: Mapping[str, ErrorFigures], logits: Float32) -> dict[str, Any]:
    """Report of the head from the probe's logits [3, rows, vocab]; path 2 is the whole stored model."""
    return {
        "output": compare(logits[0], logits[1]),
        "weights": weights_report(errors),
        "model": {
            "kl_divergence": rounded(
                float(np.mean([_kl(p, q) for p, q in zip(logits[0], logits[2], strict=True)]))
            ),
            "top1_agreement": rounded(float(np.mean(logits[0].argmax(-1) == logits[2].argmax(-1)))),
        },
    }


def _kl(original: Float32, stored: Float32) -> float:
    """KL(softmax(original) || softmax(stored)) of one row of logits, in nats."""
    p, q = (_log_softmax(row.astype(np.float64)) for row in (original, stored))
    return float(np.sum(np.exp(p) * (p - q)))


def _log_softmax(row: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = row - row.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result
