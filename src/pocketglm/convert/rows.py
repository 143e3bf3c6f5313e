"""Reading canonical rows from a checkpoint, whatever tensors they are stored in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pocketglm.architecture.table import TensorRule
from pocketglm.checkpoint.source import Checkpoint

Float32 = NDArray[np.float32]
CHUNK_ELEMENTS = 2 << 20
"""Elements read at once (8 MiB as float32): large enough for the disk, small enough for the cache."""


def read_rows(checkpoint: Checkpoint, rule: TensorRule, start: int = 0, count: int | None = None) -> Float32:
    """Rows start..start+count of a canonical tensor, float32."""
    stop = rule.shape[0] if count is None else start + count
    pieces = [
        checkpoint.read(piece.source, piece.start, piece.count) for piece in rule.rows(start, stop - start)
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def row_chunks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(start, count) of runs of rows with at most about `CHUNK_ELEMENTS` elements each."""
    step = max(1, CHUNK_ELEMENTS // max(1, shape[-1]))
    for start in range(0, shape[0], step):
        yield start, min(step, shape[0] - start)
