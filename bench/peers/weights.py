"""Random int4 weights that every format can hold without loss, so that all peers compute one model.

weight = (code - 8) * scale, a float16 scale for 64 inputs. A peer with groups of 32 writes each scale
twice, one with zero points writes 8, or 0 where codes are signed. Rows repeat after `PATTERN_ROWS`, which
no engine can profit from, and makes gigabytes quick to write.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 64
PATTERN_ROWS = 256  # a multiple of every head's width
PIECE_BYTES = 16 << 20
CODE_SPREAD = 4.6  # standard deviation of 0..15, all equally likely
EMBEDDING_SPREAD = 1.0


@dataclass(frozen=True)
class Pattern:
    """The rows [p, in] that a matrix [rows, in] repeats: codes 0..15, and scales [p, in / 64]."""

    rows: int
    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]

    def values(self) -> NDArray[np.float32]:
        """The weights, float32 [p, in]."""
        scales = np.repeat(self.scales.astype(np.float32), GROUP, axis=1)
        return (self.codes.astype(np.float32) - 8) * scales

    def interleaved(self, head_dim: int) -> Pattern:
        """Rows of each head in the order that engines with interleaved rotary pairs expect."""

        def turned(array: NDArray[Any]) -> NDArray[Any]:
            heads = array.reshape(-1, 2, head_dim // 2, array.shape[1])
            return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(array.shape)

        return Pattern(self.rows, turned(self.codes), turned(self.scales))


def pattern(name: str, rows: int, inputs: int) -> Pattern:
    """The weights of a matrix; equal names give equal weights."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    count = min(rows, PATTERN_ROWS)
    codes = generator.integers(0, 16, (count, inputs), dtype=np.uint8)
    middle = inputs**-0.5 / CODE_SPREAD
    scales = generator.uniform(0.5 * middle, 1.5 * middle, (count, inputs // GROUP)).astype(np.float16)
    return Pattern(rows, codes, scales)


def embedding(vocabulary: int, hidden: int) -> Iterator[NDArray[np.float32]]:
    """Rows of the embedding in pieces, float32, exact in bfloat16 and float16."""
    generator = np.random.default_rng(1)
    count = min(vocabulary, PATTERN_ROWS)
    values = (generator.integers(-127, 128, (count, hidden)) / 64 * EMBEDDING_SPREAD).astype(np.float32)
    yield from tiles(values, vocabulary)


def tiles(encoded: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    """`rows` rows, in large pieces: the pattern over and over.

    Large, because Linux gives huge pages to files that are written so, as a converter's are.
    """
    times = max(1, min(PIECE_BYTES // encoded.nbytes, -(-rows // len(encoded))))
    encoded = np.tile(encoded, (times, *[1] * (encoded.ndim - 1)))
    for start in range(0, rows, len(encoded)):
        yield encoded[: rows - start]


def tiled(encoded: NDArray[Any], rows: int) -> NDArray[Any]:
    """`rows` rows in one array."""
    return np.concatenate(list(tiles(encoded, rows)))
