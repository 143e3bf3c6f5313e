"""Tensors that lie in open files: where each one is, and reading rows of it as float32.

Enters: placements, as a format's parser found and checked them. Leaves: float32 rows. All formats
share this reader; a format differs only in its parser and in its element types.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pocketglm.checkpoint.elements import ElementType
from pocketglm.checkpoint.files import DataFile, OpenFiles
from pocketglm.checkpoint.source import Float32, TensorInfo
from pocketglm.errors import CheckpointError, UnsupportedModelError

CHUNK_BYTES = 128 << 10
"""Bytes read at once. Measured on 500 MB of float16 in the page cache: 64 to 128 KiB, whose float32 copy
stays in a core's cache, are a quarter faster than 1 MiB."""

MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Placement:
    """One tensor in a file. `strides` (in elements) is set for a 2-D tensor that is not stored by rows."""

    info: TensorInfo
    element: ElementType
    data: DataFile
    offset: int  # bytes from the start of the file
    strides: tuple[int, int] | None = None


@dataclass
class StoredCheckpoint:
    """A checkpoint whose tensors are placed in open files. Implements `source.Checkpoint`."""

    format: str
    path: Path
    directory: Path
    config: Mapping[str, Any]
    placements: Mapping[str, Placement]
    files: OpenFiles
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        infos = {name: placement.info for name, placement in self.placements.items()}
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(infos)

    def read(self, name: str, start: int = 0, count: int | None = None) -> Float32:
        """Rows start..start+count along the first axis, as float32 (a fresh, writable array)."""
        placement = self.placements.get(name)
        if placement is None:
            raise CheckpointError(f"has no tensor {name}", where=self.path)
        shape = placement.info.shape
        rows = shape[0] if shape else 1
        count = rows - start if count is None else count
        if start < 0 or count < 0 or start + count > rows:
            raise CheckpointError(
                f"tensor {name} has {rows} rows, cannot read rows {start} to {start + count}", where=self.path
            )
        return read_rows(placement, start, count)

    def close(self) -> None:
        self.files.close()

    def __enter__(self) -> StoredCheckpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_rows(placement: Placement, start: int, count: int) -> Float32:
    """Rows start..start+count of a placed tensor; the range is the caller's to check."""
    if placement.strides is not None:
        return _read_strided(placement, start, count)
    shape = placement.info.shape
    width = math.prod(shape[1:])
    values = _read_elements(placement, start * width, count * width)
    return values.reshape((count, *shape[1:]) if shape else ())


def _read_elements(placement: Placement, first: int, count: int) -> Float32:
    """Elements first..first+count in storage order. A block that is only partly asked for is cut."""
    block = placement.element.block
    low, high = first // block, -(-(first + count) // block)
    values: Float32 = np.empty((high - low) * block, np.float32)
    _fill(placement, low, values)
    return values[first - low * block :][:count]


def _fill(placement: Placement, first_block: int, out: Float32) -> None:
    """Decode the blocks from `first_block` into `out`, a chunk at a time."""
    element, what = placement.element, f"tensor {placement.info.name}"
    if element.decode is None:
        raise UnsupportedModelError(
            f"{what} is stored as {element.name}, which cannot be read", where=placement.info.file
        )
    step = max(1, CHUNK_BYTES // element.block_bytes)
    blocks = len(out) // element.block
    raw = np.empty(min(step, blocks) * element.block_bytes, np.uint8)
    for start in range(0, blocks, step):
        size = min(step, blocks - start)
        piece = raw[: size * element.block_bytes]
        offset = placement.offset + (first_block + start) * element.block_bytes
        placement.data.read_into(piece.data, offset, what)
        element.decode(piece, out[start * element.block : (start + size) * element.block])


def _read_strided(placement: Placement, start: int, count: int) -> Float32:
    """Rows of a transposed or widely spaced matrix, whose stored runs are columns or parts of rows."""
    strides = placement.strides or (0, 0)
    columns = placement.info.shape[1]
    out: Float32 = np.empty((count, columns), np.float32)
    if strides[1] == 1:
        for row in range(count):
            out[row] = _read_elements(placement, (start + row) * strides[0], columns)
    else:
        for column in range(columns):
            out[:, column] = _read_elements(placement, column * strides[1] + start * strides[0], count)
    return out


def check_shape(shape: object, tensor: str, path: Path) -> tuple[int, ...]:
    """An untrusted shape as a tuple of sizes."""
    if not isinstance(shape, (list, tuple)) or not all(_is_size(size) for size in shape):
        raise CheckpointError(f"tensor {tensor} has a malformed shape", where=path)
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(
            f"tensor {tensor} has {len(shape)} dimensions, expected at most {MAX_DIMENSIONS}", where=path
        )
    if math.prod(size for size in shape if size) >= 1 << 60:  # past what NumPy can address, even when empty
        raise CheckpointError(f"tensor {tensor} has the impossible shape {list(shape)}", where=path)
    return tuple(shape)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def check_no_overlap(placements: Iterable[Placement], path: Path) -> None:
    """Refuse a file in which two tensors claim the same bytes."""
    used = sorted(
        (placement for placement in placements if placement.info.size), key=lambda placement: placement.offset
    )
    for before, after in itertools.pairwise(used):
        if before.offset + before.info.size > after.offset:
            raise CheckpointError(
                f"tensors {before.info.name} and {after.info.name} overlap at offset {after.offset}",
                where=path,
            )
