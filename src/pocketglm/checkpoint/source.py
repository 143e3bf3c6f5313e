"""What every checkpoint format offers: names, shapes, and rows of one tensor at a time.

Enters: files on disk. Leaves: float32 rows. No call reads a whole file; memory is what the caller
asked for. Reads are safe from several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor. `dtype` is the format's own name (F16, BF16, Q4_1, ...); `size` is bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    file: Path


class Checkpoint(Protocol):
    """A source model."""

    format: str  # "safetensors", "torch" or "gguf"
    path: Path  # what the user named: a directory or a file
    directory: Path  # where the tokenizer and other side files are
    config: Mapping[str, Any]  # config.json; for GGUF, the same settings under the same names
    metadata: Mapping[str, Any]  # GGUF key-value metadata; empty for other formats
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str, start: int = 0, count: int | None = None) -> Float32:
        """Rows start..start+count along the first axis, as float32 (a fresh, writable array).

        Raises `CheckpointError` where the tensor is missing, cut short or damaged.
        """

    def close(self) -> None: ...
