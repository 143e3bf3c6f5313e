"""float32 to and from bfloat16, which NumPy does not have: bit patterns are held in uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bit patterns of `values` rounded to the nearest bfloat16, ties to even.

    NaN stays NaN, with its sign; infinity stays infinity; values that round past the greatest
    bfloat16 become infinity, as IEEE 754 has it. Raises InputError for another dtype.
    """
    _check_dtype(values, np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Adding 0x7fff, or 0x8000 where the last kept bit is odd, carries exactly when rounding goes up.
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    halves = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():  # a NaN whose payload lies in the dropped bits would carry into infinity
        halves[nan] = (bits[nan] >> 16).astype(np.uint16) | 0x40
    return halves


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 bit patterns; exact."""
    _check_dtype(bits, np.uint16)
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


def _check_dtype(array: NDArray[Any], dtype: type[np.generic]) -> None:
    if array.dtype != dtype:
        raise InputError(f"array is {array.dtype}, expected {np.dtype(dtype)}")
