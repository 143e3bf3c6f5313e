"""Llama 3.1's stretched rotary frequencies, recognised in the factors that GGUF files store.

Enters: `rope_freqs.weight`, the number by which each rotary frequency is divided. Leaves: the
`rope_scaling` section of the original `config.json`, whose formula gives these numbers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pocketglm.checkpoint.source import Float32
from pocketglm.errors import UnsupportedModelError

LOW_FREQUENCY, HIGH_FREQUENCY, ORIGINAL_CONTEXT = 1.0, 4.0, 8192
"""The settings of every released Llama 3.1, 3.2 and 3.3; only the factor differs (8 or 32)."""


def recognise_factors(factors: Float32, base: float, path: Path) -> dict[str, Any] | None:
    """`rope_scaling` for the stored factors; None where they are all one."""
    if np.all(factors == 1):
        return None
    factor = float(factors.max(initial=1.0))
    if math.isfinite(factor) and factor > 1 and base > 1:
        expected = llama3_factors(len(factors), base, factor)
        if np.allclose(factors, expected, rtol=1e-4, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW_FREQUENCY,
                "high_freq_factor": HIGH_FREQUENCY,
                "original_max_position_embeddings": ORIGINAL_CONTEXT,
            }
    raise UnsupportedModelError(
        "the rotary factors in rope_freqs.weight are not those of Llama 3.1", where=path
    )


def llama3_factors(count: int, base: float, factor: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What Llama 3.1 divides each of `count` frequencies by (transformers, modeling_rope_utils.py)."""
    wavelengths = 2 * math.pi * base ** (np.arange(count) / count)
    turns = ORIGINAL_CONTEXT / wavelengths  # full turns within the original context
    blend = np.clip((turns - LOW_FREQUENCY) / (HIGH_FREQUENCY - LOW_FREQUENCY), 0, 1)
    return np.asarray(1 / ((1 - blend) / factor + blend))
