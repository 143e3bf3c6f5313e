"""Quantized weights that a checkpoint already holds in the form of a package.

Enters: a tensor's name and rows. Leaves: its codes, scales and zeros as they are stored, so that a
conversion to the same format takes them over bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CodeFormat:
    """`bits` 4 or 8; `inputs` as stored, padded to whole groups; `groups` in each row."""

    bits: int
    inputs: int
    groups: int
    symmetric: bool


@dataclass(frozen=True)
class StoredCodes:
    """Rows as stored; see `package/encoding.py` for the bits.

    codes: uint8 [rows, bytes]. alpha: float16 [rows, groups, 2] as (zero, scale), or [rows, groups, 1] as
    scale where the format is symmetric.
    """

    codes: NDArray[np.uint8]
    alpha: NDArray[np.float16]


@runtime_checkable
class QuantizedCheckpoint(Protocol):
    """A checkpoint, some tensors of which are quantized in a package's way."""

    def code_format(self, name: str) -> CodeFormat | None:
        """How a tensor is stored, or None where it is not quantized."""

    def read_codes(self, name: str, start: int, count: int) -> StoredCodes:
        """Rows start..start+count of a quantized tensor.

        Raises `UnsupportedModelError`, naming the tensor, where its scales do not fit float16 exactly.
        """
