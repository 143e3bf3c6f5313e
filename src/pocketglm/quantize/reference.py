"""NumPy reference of the quantize kernels: the same functions, the same arithmetic, the same bytes.

`native/quantize/` mirrors every float32 operation here in the same order, so codes and scales never
depend on the machine. This file is the oracle of the tests and the readable account of the method; it
is too slow for real models, and nothing falls back to it.

The fit of one group. A weight is `code * scale + zero`. Sixteen candidates stand side by side: the
range of the group with one end moved by a few code steps (`STEPS`). Each is rounded to float16 as it will be
stored, gives codes and their squared error, and is then moved to the least-squares optimum of
those codes; `PASSES` times in all. The best (scale, zero) seen wins. Candidate 0 starts as plain
round-to-nearest, so the result is never worse than that. The idea of trying ranges and refitting in
closed form is llama.cpp's (make_qkx2_quants).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

PASSES = 3
BLOCK = 128  # sums run over blocks of this many elements, which keeps long float32 sums accurate
SMALLEST_SCALE = np.float32(2.0**-24)  # least positive float16: a scale is never 0
ROUND = np.float32(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds to nearest even

# Code steps cut off the range below and above it, one pair per candidate; the same in native/quantize/fit.h.
# Moving one end shifts the grid of values against the weights, which matters more than shrinking it:
# 16 candidates of this kind come as close to the optimum as 36 that shrink both ends.
STEPS = (0.0, -1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25)
BELOW = np.array([step if i % 2 == 0 else 0.0 for i, step in enumerate(STEPS)], np.float32)
ABOVE = np.array([step if i % 2 == 1 else 0.0 for i, step in enumerate(STEPS)], np.float32)


def code_limits(bits: int, symmetric: bool) -> tuple[np.float32, np.float32]:
    """Least and greatest code."""
    top = (1 << (bits - 1)) - 1
    return np.float32(-top if symmetric else -top - 1), np.float32(top)


def round_codes(offset: Float32, inverse: Float32, low: np.float32, high: np.float32) -> Float32:
    """Codes, as floats, of weights that lie `offset` above the zero."""
    code = (offset * inverse + ROUND) - ROUND
    clamped: Float32 = np.minimum(np.maximum(code, low), high)
    return clamped


def _half(value: Float32) -> Float32:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    rounded: Float32 = half.astype(np.float32)
    return rounded


def _stored(scale: Float32, zero: Float32) -> tuple[Float32, Float32]:
    """Scale and zero as float16 will hold them; what float16 cannot hold turns to infinity."""
    half = _half(scale)
    return np.where(half > SMALLEST_SCALE, half, SMALLEST_SCALE), _half(zero)


def starting_points(
    weights: Float32, candidates: int, low: np.float32, high: np.float32, symmetric: bool
) -> tuple[Float32, Float32]:
    """(scale, zero) [groups, candidates] of the first candidates for weights [groups, size].

    The zero is rounded first, and the scale then spans the range as seen from the rounded zero: a
    narrow range far from 0, where float16 is coarse, is still covered.
    """
    least = weights.min(axis=1, keepdims=True) + np.float32(0)  # + 0: no negative zero
    greatest = weights.max(axis=1, keepdims=True) + np.float32(0)
    below, above = BELOW[:candidates], ABOVE[:candidates]
    if symmetric:
        reach = np.maximum(greatest, np.float32(0) - least)
        scale = (reach - (reach / high) * (below + above)) / high
        return _stored(scale, np.zeros_like(scale))
    step = (greatest - least) / (high - low)
    bottom = least + step * below
    top = greatest - step * above
    zero = _half(bottom - low * ((top - bottom) / (high - low)))
    return _stored(np.maximum((top - zero) / high, (bottom - zero) / low), zero)


def evaluate(
    weights: Float32, importance: Float32, scale: Float32, zero: Float32, low: np.float32, high: np.float32
) -> Float32:
    """Sums over each group [5, groups, candidates]: p r^2, p r, p r q, p q, p q^2.

    p is the importance, q the code, r the residual `weight - zero - q * scale`.
    """
    inverse = np.float32(1) / scale
    total = np.zeros((5, *scale.shape), np.float32)
    for start in range(0, weights.shape[1], BLOCK):
        block = np.zeros_like(total)
        for i in range(start, min(start + BLOCK, weights.shape[1])):
            p = importance[:, i, None]
            offset = weights[:, i, None] - zero
            code = round_codes(offset, inverse, low, high)
            residual = offset - code * scale
            weighted = p * residual
            weighted_code = p * code
            block[0] += weighted * residual
            block[1] += weighted
            block[2] += weighted * code
            block[3] += weighted_code
            block[4] += weighted_code * code
        total += block
    return total


def refit(sums: Float32, mass: Float32, symmetric: bool) -> tuple[Float32, Float32]:
    """Least-squares change of (scale, zero) for the codes that gave `sums`; 0 where undetermined."""
    _, r, rq, q, qq = sums
    if symmetric:
        safe = np.where(qq > 0, qq, np.float32(1))
        return np.where(qq > 0, rq / safe, np.float32(0)), np.zeros_like(rq)
    determinant = mass * qq - q * q
    known = determinant > np.float32(1e-6) * (mass * qq)
    safe = np.where(known, determinant, np.float32(1))
    scale = np.where(known, (mass * rq - q * r) / safe, np.float32(0))
    zero = np.where(known, (qq * r - q * rq) / safe, np.float32(0))
    return scale, zero


def fit(
    weights: Float32, importance: Float32, bits: int, symmetric: bool, search: bool
) -> tuple[Float32, Float32]:
    """Best stored (scale, zero) [groups] of weights [groups, size] under importance of the same shape."""
    low, high = code_limits(bits, symmetric)
    scale, zero = starting_points(weights, len(STEPS) if search else 1, low, high, symmetric)
    if not search:
        return scale[:, 0], zero[:, 0]
    mass = np.zeros((len(weights), 1), np.float32)
    for i in range(weights.shape[1]):
        mass += importance[:, i, None]
    best_error = np.full(scale.shape, np.inf, np.float32)
    best_scale, best_zero = scale, zero
    for step in range(PASSES):
        sums = evaluate(weights, importance, scale, zero, low, high)
        better = sums[0] < best_error
        best_error = np.where(better, sums[0], best_error)
        best_scale = np.where(better, scale, best_scale)
        best_zero = np.where(better, zero, best_zero)
        if step + 1 < PASSES:
            change_scale, change_zero = refit(sums, mass, symmetric)
            scale, zero = _stored(scale + change_scale, zero + change_zero)
    chosen = np.argmin(best_error, axis=1)[:, None]  # the first of equals
    return (
        np.take_along_axis(best_scale, chosen, axis=1)[:, 0],
        np.take_along_axis(best_zero, chosen, axis=1)[:, 0],
    )


def quantize(
    weights: Float32,
    importance: Float32 | None,
    bits: int,
    group_size: int,
    symmetric: bool,
    search: bool,
    codes: NDArray[np.uint8],
    alpha: NDArray[np.float16],
) -> None:
    """Quantize weights [rows, inputs] into codes [rows, code_bytes] and alpha [rows, groups, 2 or 1].

    importance is [stored inputs], 0 in the padding; None stands for equal importance and no padding.
    """
    rows, inputs = weights.shape
    groups = alpha.shape[1]
    padded = _padded(weights, group_size, groups)
    if importance is None:
        importance = np.ones(groups * group_size, np.float32)
    spread = np.tile(importance.reshape(groups, group_size), (rows, 1))
    scale, zero = fit(padded, spread, bits, symmetric, search)
    low, high = code_limits(bits, symmetric)
    offset = padded - zero[:, None]
    signed = round_codes(offset, (np.float32(1) / scale)[:, None], low, high).astype(np.int8)
    signed = signed.reshape(rows, groups * group_size)
    signed[:, inputs:] = 0
    codes[:] = pack(signed, bits)
    alpha[..., -1] = scale.reshape(rows, groups)
    if not symmetric:
        alpha[..., 0] = zero.reshape(rows, groups)


def _padded(weights: Float32, group_size: int, groups: int) -> Float32:
    """Weights as [rows * groups, group_size]; padding repeats the last group's first weight."""
    rows, inputs = weights.shape
    padding = groups * group_size - inputs
    if padding:
        first = weights[:, (groups - 1) * group_size, None]
        weights = np.concatenate([weights, np.repeat(first, padding, axis=1)], axis=1)
    return weights.reshape(rows * groups, group_size)


def pack(signed: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Bytes of signed codes [rows, stored]: int8 as code + 128; int4 as code + 8, the even input high."""
    if bits == 8:
        return signed.view(np.uint8) ^ np.uint8(128)
    nibbles = (signed + np.int8(8)).view(np.uint8)
    return (nibbles[:, 0::2] << np.uint8(4)) | nibbles[:, 1::2]


def unpack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """Signed codes [rows, stored] of packed ones."""
    if bits == 8:
        return (codes ^ np.uint8(128)).view(np.int8)
    nibbles = np.stack([codes >> 4, codes & 15], axis=-1).view(np.int8)
    return nibbles.reshape(len(codes), -1) - np.int8(8)


def dequantize(
    codes: NDArray[np.uint8], alpha: NDArray[np.float16], bits: int, group_size: int, out: Float32
) -> None:
    """Weights into out [rows, inputs]; padding is dropped."""
    rows, groups, values = alpha.shape
    signed = unpack(codes, bits).reshape(rows, groups, group_size).astype(np.float32)
    zero = alpha[..., :1].astype(np.float32) if values == 2 else np.float32(0)
    weights = signed * alpha[..., -1:].astype(np.float32) + zero
    out[:] = weights.reshape(rows, -1)[:, : out.shape[1]]


def compare(original: Float32, stored: Float32) -> tuple[float, float, float, float, float]:
    """Squared error, squared norm of each, dot product and largest absolute error of [rows, inputs].

    Sixteen float32 lanes run over 256 elements, then sixteen float64 lanes over the row, then a tree
    over the lanes, then the rows in order.
    """
    rows, inputs = original.shape
    steps = ((0, 0), (0, -inputs % 256))
    a, b = (np.pad(x, steps).reshape(rows, -1, 16, 16) for x in (original, stored))
    difference = a - b
    largest = np.abs(difference).max()
    sums = []
    for product in (difference * difference, a * a, b * b, a * b):
        lanes = np.zeros((rows, 16))
        for block in range(product.shape[1]):
            partial = np.zeros((rows, 16), np.float32)
            for step in range(16):
                partial += product[:, block, step]
            lanes += partial
        for width in (8, 4, 2, 1):
            lanes = lanes[:, :width] + lanes[:, width:]
        sums.append(sum(lanes[:, 0].tolist(), 0.0))
    return sums[0], sums[1], sums[2], sums[3], float(largest)
