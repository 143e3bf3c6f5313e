"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

Enters: positions int32 [axes, rows] and a `RotarySpec`. Leaves: the cosines and sines of those rows,
which every block of a forward pass shares, and heads turned by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pocketglm.architecture.spec import RopeScaling, RotarySpec
from pocketglm.engine.contract import Float32, Int32


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of some rows, float32 [rows, 1, axes, pairs of an axis]."""

    rotary: RotarySpec
    cosine: Float32
    sine: Float32

    def apply(self, heads: Float32) -> None:
        """Turn `heads` [..., rows, heads, head_dim] in place. Dimensions past `dimensions` stay."""
        axes, pairs = self.cosine.shape[-2:]
        turned = heads[..., : self.rotary.dimensions]
        if self.rotary.kind == "half":
            split = turned.reshape(*turned.shape[:-1], axes, 2, pairs)
            first, second = split[..., 0, :], split[..., 1, :]
        else:
            split = turned.reshape(*turned.shape[:-1], axes, pairs, 2)
            first, second = split[..., 0], split[..., 1]
        new_first = first * self.cosine - second * self.sine
        second[...] = second * self.cosine + first * self.sine
        first[...] = new_first


def rotate_at(rotary: RotarySpec, positions: Int32) -> Rotation:
    """The rotation of rows at `positions` [axes, rows]."""
    # float32 throughout, as the models were trained: at 100,000 tokens its rounding can be seen
    angles = positions.T.astype(np.float32)[:, None, :, None] * frequencies(rotary)
    return Rotation(rotary, np.cos(angles), np.sin(angles))


def frequencies(rotary: RotarySpec) -> Float32:
    """Radians a position, for each pair of dimensions of one axis: float32 [pairs]."""
    size = rotary.dimensions // rotary.axes
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    # The power is rounded once, to float32, as the models were trained with: an ulp more or less in a
    # frequency grows with the position. The C libraries' float32 powers differ among themselves.
    powers: Float32 = np.power(rotary.base, exponents.astype(np.float64)).astype(np.float32)
    inverse = np.float32(1) / powers
    if rotary.scaling is not None:
        inverse = _scale(inverse, rotary.scaling)
    rounded: Float32 = inverse.astype(rotary.frequency_dtype).astype(np.float32)
    return rounded


def _scale(inverse: Float32, scaling: RopeScaling) -> Float32:
    """Frequencies stretched for a longer context; see `RopeScaling`."""
    stretched: Float32 = inverse / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return stretched
    # Llama 3.1: by how often a pair turns within the trained context, from `low` (stretched)
    # to `high` turns (kept), with a linear blend in between.
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = np.float32(scaling.original_context) * inverse / np.float32(2 * np.pi)
    kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1)
    blended: Float32 = (np.float32(1) - kept) * stretched + kept * inverse
    return blended
