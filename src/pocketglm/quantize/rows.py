"""Rows of a weight matrix to codes and scales, and back. Enters: float32 rows; leaves: QuantizedRows.

The arithmetic is in the native kernels and, readable, in `reference`: byte for byte the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError
from pocketglm.quantize import native
from pocketglm.quantize.formats import WeightFormat

Float32 = NDArray[np.float32]

LARGEST = 65504.0
"""Greatest finite float16: zeros are float16, so no weight may exceed it."""


@dataclass(frozen=True)
class QuantizedRows:
    """Stored form of some rows. Concatenating the rows of two gives the rows of the whole."""

    codes: NDArray[np.uint8]  # [rows, fmt.code_bytes(inputs)]
    alpha: NDArray[np.float16]  # [rows, groups, 2] as (zero, scale); [rows, groups, 1], scale, if symmetric


def quantize_rows(weights: Float32, fmt: WeightFormat, importance: Float32 | None = None) -> QuantizedRows:
    """Quantize weights [rows, inputs]; `importance` [inputs], >= 0, weights the squared error by column.

    Raises InputError for a float format, for NaN or infinity (naming row and column), and for a weight
    beyond float16's range.
    """
    _check_format(fmt)
    if weights.ndim != 2 or 0 in weights.shape:
        raise InputError(f"weights have shape {list(weights.shape)}, expected [rows, inputs], neither 0")
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    _check_finite(weights)
    rows, inputs = weights.shape
    groups = fmt.groups(inputs)
    codes = np.empty((rows, fmt.code_bytes(inputs)), np.uint8)
    alpha = np.empty((rows, groups, 1 if fmt.symmetric else 2), np.float16)
    native.quantize(
        weights,
        stored_importance(importance, inputs, fmt),
        fmt.bits,
        fmt.group_size(inputs),
        fmt.symmetric,
        fmt.search,
        codes,
        alpha,
    )
    return QuantizedRows(codes, alpha)


def dequantize_rows(
    quantized: QuantizedRows, fmt: WeightFormat, inputs: int, out: Float32 | None = None
) -> Float32:
    """Weights [rows, inputs] as float32 of stored rows, into `out` if given."""
    _check_format(fmt)
    rows = len(quantized.codes)
    _check_stored(quantized, fmt, rows, inputs)
    if out is None:
        out = np.empty((rows, inputs), np.float32)
    elif out.shape != (rows, inputs) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise InputError(f"out must be a contiguous float32 array of shape [{rows}, {inputs}]")
    native.dequantize(quantized.codes, quantized.alpha, fmt.bits, fmt.group_size(inputs), out)
    return out


def _check_format(fmt: WeightFormat) -> None:
    if not fmt.quantized:
        raise InputError(
            f"float{fmt.bits} weights are stored as they are, not quantized",
            hint="use 8 or 4 bits here; the package writer stores float formats",
        )


def _check_finite(weights: Float32) -> None:
    index = native.first_unrepresentable(weights)
    if index == weights.size:
        return
    row, column = divmod(index, weights.shape[1])
    value = weights[row, column]
    problem = f"exceeds the greatest float16, {LARGEST:g}" if np.isfinite(value) else "is not a finite number"
    raise InputError(f"weight at row {row}, column {column} is {value:g}: it {problem}")


def _check_stored(quantized: QuantizedRows, fmt: WeightFormat, rows: int, inputs: int) -> None:
    codes, alpha = quantized.codes, quantized.alpha
    expected_codes = (rows, fmt.code_bytes(inputs))
    expected_alpha = (rows, fmt.groups(inputs), 1 if fmt.symmetric else 2)
    if codes.shape != expected_codes or codes.dtype != np.uint8:
        raise InputError(f"codes are {codes.dtype} {codes.shape}, expected uint8 {expected_codes}")
    if alpha.shape != expected_alpha or alpha.dtype != np.float16:
        raise InputError(f"alpha is {alpha.dtype} {alpha.shape}, expected float16 {expected_alpha}")


def stored_importance(importance: Float32 | None, inputs: int, fmt: WeightFormat) -> Float32 | None:
    """Importance [stored inputs] as the kernels take it: 0 in the padding, at most 1 in each group.

    A group whose importances are all 0 is fitted as if they were equal.
    """
    stored = fmt.stored_inputs(inputs)
    if importance is None:
        if stored == inputs:
            return None
        importance = np.ones(inputs, np.float32)
    if importance.shape != (inputs,):
        raise InputError(f"importance has shape {list(importance.shape)}, expected [{inputs}]")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise InputError("importance must be finite and not negative")
    padded = np.zeros(stored, np.float32)
    padded[:inputs] = importance
    grouped = padded.reshape(-1, fmt.group_size(inputs))  # [groups, size]
    valid = (np.arange(stored) < inputs).reshape(grouped.shape)
    largest = grouped.max(axis=1, keepdims=True)
    scaled: Float32 = np.divide(grouped, largest, out=valid.astype(np.float32), where=largest > 0)
    return scaled.reshape(stored)
