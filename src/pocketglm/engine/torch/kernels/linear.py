"""Matrix products that read the package's bytes and dequantize them in registers.

Enters: activations float32 [rows, in] and a layer as stored. Leaves: float32 [rows, out]. One or two rows
go through `_matvec`, which is bound by the reading of the weights; more go through `_matmul`, on tensor
cores in float16 with float32 sums. The oracle is `plain.linear`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from pocketglm.engine.torch.kernels.launch import FUSED, next_power_of_two, processors
from pocketglm.engine.torch.weights import DeviceLinear

MATVEC_ROWS = 2
"""Rows up to which each is a matrix-vector product of its own. An int4 weight is half a byte and costs two
operations a row, beside some four to unpack: at a GPU's 10 to 14 float32 operations a byte of memory
bandwidth, the third row would make arithmetic the limit. Its weights come from the L2 cache after the
first row."""

MATVEC_OUTPUTS = 8
"""Outputs of one program of `_matvec`: some 500 programs for a layer of 4096, four on each processor."""

MATVEC_BYTES = 512
"""Bytes of one output's weights that a program reads at once: 16 for each thread of a warp."""

HALF_RANGE = 1024.0
"""What the largest value of a row becomes in float16: far from its largest number, 65504, and 2^24 times
its smallest normal one."""


def linear(x: Tensor, layer: DeviceLinear) -> Tensor:
    """x float32 [rows, in] -> x W^T + bias, float32 [rows, out]."""
    if layer.format.bits == 32:
        return functional.linear(x, layer.codes, layer.bias)
    return matvec(x, layer) if x.shape[0] <= MATVEC_ROWS else matmul(x, layer)


def matvec(x: Tensor, layer: DeviceLinear) -> Tensor:
    """`linear` for a few rows: float32 throughout."""
    x = x.contiguous()
    rows, (outputs, inputs) = x.shape[0], layer.shape
    bits, stored = layer.format.bits, layer.format.stored_inputs(inputs)
    chunk = min(layer.format.group or 32, 128) if layer.format.quantized else 32
    chunks = min(MATVEC_BYTES * 8 // bits, next_power_of_two(stored)) // chunk
    output = torch.empty(rows, outputs, dtype=torch.float32, device=x.device)
    _matvec[(triton.cdiv(outputs, MATVEC_OUTPUTS), rows)](
        x,
        layer.codes,
        layer.alpha,
        layer.bias,
        output,
        inputs,
        stored,
        outputs,
        layer.format.group_size(inputs),
        layer.format.groups(inputs) if layer.format.quantized else 0,
        BITS=bits,
        SYMMETRIC=layer.format.symmetric,
        CHUNK=chunk,
        CHUNKS=max(1, chunks),
        OUTPUTS=MATVEC_OUTPUTS,
        num_warps=4,
        **FUSED,
    )
    return output


@triton.jit
def _matvec(
    x: tl.tensor,  # float32 [rows, inputs]
    codes: tl.tensor,  # as in `DeviceLinear`
    alpha: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,  # float32 [rows, outputs]
    inputs: int,
    stored: int,
    outputs: int,
    group: int,
    groups: int,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    CHUNK: tl.constexpr,  # inputs that share a group
    CHUNKS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """Some outputs of one row. Codes are summed before their group's scale is applied."""
    row = tl.program_id(1).to(tl.int64)
    out = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    packed: tl.constexpr = 2 if BITS == 4 else 1
    step: tl.constexpr = CHUNK // packed
    row_codes = codes + out.to(tl.int64)[:, None, None] * (stored // packed)  # [OUTPUTS, 1, 1]
    chunk = tl.arange(0, CHUNKS)
    place = tl.arange(0, step)[None, None, :]
    sums = tl.zeros([OUTPUTS, CHUNKS], dtype=tl.float32)
    for start in range(0, stored, CHUNKS * CHUNK):
        first = start + chunk * CHUNK  # [CHUNKS]
        at = first[None, :, None] // packed + place  # [1, CHUNKS, step]
        inside = at < stored // packed
        stored_codes = tl.load(row_codes + at, mask=inside & (out < outputs)[:, None, None], other=0)
        if BITS == 4:
            even = tl.load(x + row * inputs + 2 * at, mask=2 * at < inputs, other=0.0)
            odd = tl.load(x + row * inputs + 2 * at + 1, mask=2 * at + 1 < inputs, other=0.0)
            high, low = _signed(stored_codes >> 4, 8), _signed(stored_codes & 15, 8)
            products = high * even + low * odd
            total = tl.sum(even + odd, axis=2)  # [1, CHUNKS]
        else:
            values = tl.load(x + row * inputs + at, mask=at < inputs, other=0.0)
            weights = _signed(stored_codes, 128) if BITS == 8 else stored_codes.to(tl.float32)
            products = weights * values
            total = tl.sum(values, axis=2)
        part = tl.sum(products, axis=2)  # [OUTPUTS, CHUNKS]
        if BITS == 16:
            sums += part
        else:
            index = out.to(tl.int64)[:, None] * groups + (first // group)[None, :]
            known = (out < outputs)[:, None] & (first < stored)[None, :]
            if SYMMETRIC:
                sums += part * tl.load(alpha + index, mask=known, other=0.0).to(tl.float32)
            else:
                zero = tl.load(alpha + 2 * index, mask=known, other=0.0).to(tl.float32)
                scale = tl.load(alpha + 2 * index + 1, mask=known, other=0.0).to(tl.float32)
                sums += part * scale + total * zero
    result = tl.sum(sums, axis=1)
    if bias is not None:
        result += tl.load(bias + out, mask=out < outputs, other=0.0)
    tl.store(output + row * outputs + out, result, mask=out < outputs)


@triton.jit
def _signed(codes: tl.tensor, offset: tl.constexpr) -> tl.tensor:
    """Stored codes as float32, less their offset. A code in the low bits of 2^23 is that number plus the
    code: a logical operation and a sum, where a GPU converts integers at a quarter of that rate or less."""
    return (codes.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + offset)


def matmul(x: Tensor, layer: DeviceLinear) -> Tensor:
    """`linear` for many rows: activations and weights become float16, each row with a scale of its own."""
    rows, (outputs, inputs) = x.shape[0], layer.shape
    step = _inputs_at_once(layer)
    padded = -(-layer.format.stored_inputs(inputs) // step) * step
    half, scales = half_rows(x.contiguous(), padded, split_pairs=layer.format.bits == 4)
    tile_rows, tile_outputs, warps = _tile(rows)
    tiles = triton.cdiv(rows, tile_rows) * triton.cdiv(outputs, tile_outputs)
    splits = _splits(tiles, padded // step, x.device)
    output = torch.empty(splits, rows, outputs, dtype=torch.float32, device=x.device)
    _matmul[(tiles, splits)](
        half,
        scales,
        layer.codes,
        layer.alpha,
        layer.bias,
        output,
        rows,
        inputs,
        padded,
        outputs,
        layer.format.group_size(inputs),
        layer.format.groups(inputs) if layer.format.quantized else 0,
        BITS=layer.format.bits,
        SYMMETRIC=layer.format.symmetric,
        STEP=step,
        ROWS=tile_rows,
        OUTPUTS=tile_outputs,
        num_warps=warps,
        num_stages=3,
        **FUSED,
    )
    return output[0] if splits == 1 else output.sum(dim=0)


def _inputs_at_once(layer: DeviceLinear) -> int:
    """Inputs of one step of `_matmul`: within one group, and whole steps in a row that is quantized."""
    if not layer.format.quantized:
        return 64
    if layer.format.group:
        return layer.format.group
    return 64 if layer.format.stored_inputs(layer.shape[1]) % 64 == 0 else 32


def _tile(rows: int) -> tuple[int, int, int]:
    """Rows and outputs of one program of `_matmul`, and its warps. Weights are the left operand, so that
    few rows waste nothing and dequantized weights can go from registers into the tensor cores."""
    if rows <= 16:
        return 16, 64, 4
    return (64, 64, 4) if rows <= 64 else (128, 128, 8)


def _splits(tiles: int, steps: int, device: torch.device) -> int:
    """Parts into which the inputs are cut so that two programs lie on every processor; their sums are
    added in a fixed order."""
    return max(1, min(-(-2 * processors(device) // tiles), steps // 4, 16)) if tiles else 1


@triton.jit(do_not_specialize=["rows"])
def _matmul(
    half: tl.tensor,  # float16 [rows, padded], from `half_rows`
    scales: tl.tensor,  # float32 [rows]
    codes: tl.tensor,
    alpha: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,  # float32 [splits, rows, outputs]
    rows: int,
    inputs: int,
    padded: int,
    outputs: int,
    group: int,
    groups: int,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    """A tile [OUTPUTS, ROWS] of the transposed product over one split's inputs."""
    # Tiles of the same weights follow one another, so that these are read from memory once
    row_tiles = tl.cdiv(rows, ROWS)
    row = (tl.program_id(0) % row_tiles) * ROWS + tl.arange(0, ROWS)
    out = (tl.program_id(0) // row_tiles) * OUTPUTS + tl.arange(0, OUTPUTS)
    split, splits = tl.program_id(1), tl.num_programs(1)
    steps = padded // STEP
    packed: tl.constexpr = 2 if BITS == 4 else 1
    size: tl.constexpr = STEP // packed
    place = tl.arange(0, size)
    row_half = half + row.to(tl.int64)[None, :] * padded + place[:, None]  # [size, ROWS]
    stride = inputs if BITS == 16 else padded // packed
    row_codes = codes + out.to(tl.int64)[:, None] * stride + place[None, :]  # [OUTPUTS, size]
    row_alpha = out.to(tl.int64) * groups
    has_row, has_out = (row < rows)[None, :], (out < outputs)[:, None]
    sums = tl.zeros([OUTPUTS, ROWS], dtype=tl.float32)
    for step in range(split * steps // splits, (split + 1) * steps // splits):
        at = step * size
        values = tl.load(row_half + at, mask=has_row, other=0.0)
        if BITS == 16:
            inside = has_out & (at + place < inputs)[None, :]
            sums = tl.dot(tl.load(row_codes + at, mask=inside, other=0.0), values, sums)
        else:
            stored_codes = tl.load(row_codes + at, mask=has_out, other=0)
            index = row_alpha + step * STEP // group
            if SYMMETRIC:
                scale = tl.load(alpha + index, mask=out < outputs, other=0.0).to(tl.float32)[:, None]
                zero = scale * 0.0
            else:
                zero = tl.load(alpha + 2 * index, mask=out < outputs, other=0.0).to(tl.float32)[:, None]
                scale = tl.load(alpha + 2 * index + 1, mask=out < outputs, other=0.0).to(tl.float32)[:, None]
            if BITS == 4:
                high = _signed(stored_codes >> 4, 8) * scale + zero
                sums = tl.dot(high.to(tl.float16), values, sums)
                odd = tl.load(row_half + padded // 2 + at, mask=has_row, other=0.0)
                low = _signed(stored_codes & 15, 8) * scale + zero
                sums = tl.dot(low.to(tl.float16), odd, sums)
            else:
                weights = _signed(stored_codes, 128) * scale + zero
                sums = tl.dot(weights.to(tl.float16), values, sums)
    sums *= tl.load(scales + row, mask=row < rows, other=0.0)[None, :]
    if bias is not None and split == 0:
        sums += tl.load(bias + out, mask=out < outputs, other=0.0)[:, None]
    place_out = (split * rows + row).to(tl.int64)[None, :] * outputs + out[:, None]
    tl.store(output + place_out, sums, mask=has_row & has_out)


def half_rows(x: Tensor, padded: int, *, split_pairs: bool) -> tuple[Tensor, Tensor]:
    """x float32 [rows, n] as float16 [rows, padded] and float32 scales [rows]; past n stand zeros.

    A row is divided by its scale, so that no model's activations are too large or too small for float16.
    With `split_pairs` the values of even places come first, then those of odd ones: int4 codes lie in
    pairs, and each half of a byte meets its own half of the row.
    """
    rows, inputs = x.shape
    half = torch.empty(rows, padded, dtype=torch.float16, device=x.device)
    scales = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = min(1024, next_power_of_two(padded))
    _half_rows[(rows,)](x, half, scales, inputs, padded, HALF_RANGE, SPLIT=split_pairs, BLOCK=block, **FUSED)
    return half, scales


@triton.jit
def _half_rows(
    x: tl.tensor,
    half: tl.tensor,
    scales: tl.tensor,
    inputs: int,
    padded: int,
    largest: float,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One row: its largest value, then the row divided."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    peak = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, inputs, BLOCK):
        at = start + place
        peak = tl.maximum(peak, tl.abs(tl.load(x + row * inputs + at, mask=at < inputs, other=0.0)))
    scale = tl.max(peak, axis=0) / largest
    scale = tl.where(scale > 0.0, scale, 1.0)
    tl.store(scales + row, scale)
    for start in range(0, padded, BLOCK):
        at = start + place
        values = tl.load(x + row * inputs + at, mask=at < inputs, other=0.0) / scale
        target = (at % 2) * (padded // 2) + at // 2 if SPLIT else at
        tl.store(half + row * padded + target, values.to(tl.float16), mask=at < padded)
