"""Matrix products that read the package's bytes and dequantize them in registers.

Enters: activations float32 [rows, in] and a layer as stored. Leaves: float32 [rows, out]. One or two rows
go through `_matvec`, which is to be bound by the reading of the weights; more go through `_matmul`, on
tensor cores in float16 with float32 sums. The oracle is `plain.linear`.
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
"""Rows up to which weights are unpacked for products in float32: 4.7 operations for an int4 weight and one
row, 6.3 for two (counted in the machine code), ten for four, which need all registers. Tensor cores want
tiles and take ten for up to sixteen."""

MATVEC_OUTPUTS = 4
"""Outputs of one program of `_matvec`, which is one warp: they share the loads of x, and their sums leave
registers for 16 warps on a processor, or 28 with one row."""

MATVEC_WORDS = 128
"""Words of one output's codes that a program reads at once: 16 bytes for each thread of a warp."""

BASE = 0x4B000000
"""The bits of 2^23 as float32. `_matvec` takes them as an argument: a constant would be loaded into a
register for every code, a sixth more instructions (seen in the machine code)."""

HALF_RANGE = 1024.0
"""What the largest value of a row becomes in float16: far from its largest number, 65504, and 2^24 times
its smallest normal one."""


def linear(x: Tensor, layer: DeviceLinear) -> Tensor:
    """x float32 [rows, in] -> x W^T + bias, float32 [rows, out]."""
    if layer.format.bits == 32:
        return functional.linear(x, layer.codes, layer.bias)
    in_words = layer.codes.shape[1] * layer.codes.itemsize % 4 == 0
    return matvec(x, layer) if x.shape[0] <= MATVEC_ROWS and in_words else matmul(x, layer)


def matvec(x: Tensor, layer: DeviceLinear) -> Tensor:
    """`linear` for a few rows: float32 throughout. Rows of codes must be whole words of 32 bits."""
    rows, (outputs, inputs) = x.shape[0], layer.shape
    form, codes = layer.format, layer.codes.view(torch.int32)
    words, per_word = codes.shape[1], 32 // form.bits
    x_planes = planes(x.contiguous(), words, form.bits)
    alpha = layer.alpha
    if alpha is not None and not form.symmetric:
        alpha = alpha.view(torch.int32)  # zero and scale are one word
    output = torch.empty(rows, outputs, dtype=torch.float32, device=x.device)
    _matvec[(triton.cdiv(outputs, MATVEC_OUTPUTS),)](
        x_planes,
        codes,
        alpha,
        layer.bias,
        output,
        rows,
        words,
        outputs,
        form.groups(inputs) if form.quantized else 0,
        BASE,
        BITS=form.bits,
        SYMMETRIC=form.symmetric,
        GROUP=form.group // per_word,
        ROWS=next_power_of_two(rows),
        OUTPUTS=MATVEC_OUTPUTS,
        WORDS=MATVEC_WORDS,
        num_warps=1,
        **FUSED,
    )
    return output


@triton.jit
def _matvec(
    planes: tl.tensor,  # float32 [rows, codes in a word + 1, words], from `planes`
    codes: tl.tensor,  # int32 [outputs, words]
    alpha: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,  # float32 [rows, outputs]
    rows: tl.constexpr,
    words: int,
    outputs: int,
    groups: int,
    base: int,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    GROUP: tl.constexpr,  # words of a group; 0: the row
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WORDS: tl.constexpr,
) -> None:
    """Some outputs of all rows. Threads hold the same words of x and of several outputs, and add up what is
    theirs; they meet once, at the end."""
    count: tl.constexpr = 32 // BITS
    row = tl.arange(0, ROWS)
    out = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    has_row, has_out = (row < rows)[:, None, None], (out < outputs)[None, :, None]
    row_codes = codes + out.to(tl.int64)[None, :, None] * words  # [1, OUTPUTS, 1]
    row_alpha = alpha + out.to(tl.int64)[None, :, None] * groups if BITS < 16 else alpha
    x = planes + row[:, None, None] * (count + 1) * words  # [ROWS, 1, 1]
    sums = tl.zeros([ROWS, OUTPUTS, WORDS], dtype=tl.float32)
    for start in range(0, words, WORDS):
        at = start + tl.arange(0, WORDS)[None, None, :]
        inside = at < words
        word = tl.load(row_codes + at, mask=inside & has_out, other=0)
        part = tl.zeros([ROWS, OUTPUTS, WORDS], dtype=tl.float32)
        for place in tl.static_range(count):
            values = tl.load(x + place * words + at, mask=inside & has_row, other=0.0)
            part += _code(word, place, base, BITS) * values
        if BITS == 16:
            sums += part
        else:
            index = at // GROUP if GROUP else at * 0
            pair = tl.load(row_alpha + index, mask=inside & has_out, other=0)
            if SYMMETRIC:
                sums += part * pair.to(tl.float32)
            else:
                total = tl.load(x + count * words + at, mask=inside & has_row, other=0.0)
                scale = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
                sums += part * scale + total * pair.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    result = tl.sum(sums, axis=2)
    known = (row < rows)[:, None] & (out < outputs)[None, :]
    if bias is not None:
        result += tl.load(bias + out, mask=out < outputs, other=0.0)[None, :]
    tl.store(output + row[:, None] * outputs + out[None, :], result, mask=known)


@triton.jit
def _code(word: tl.tensor, place: tl.constexpr, base: int, BITS: tl.constexpr) -> tl.tensor:
    """The code at a place of a word, less its offset, times what `_planes` divides x by; as float32.

    A code in the low bits of 2^23 is that number plus the code: one logical operation and one sum, where a
    GPU converts integers at half that rate or less. Codes further left in those bits are as good, only
    larger, so that a word is shifted once.
    """
    if BITS == 16:
        result = (word >> (16 * place)).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        unshifted: tl.constexpr = 5 if BITS == 4 else 2  # those that end below bit 23
        moved = word if place < unshifted else word >> (unshifted * BITS)
        lowest: tl.constexpr = 1 << (place % unshifted * BITS)
        mask: tl.constexpr = ((1 << BITS) - 1) * lowest
        offset: tl.constexpr = 8388608.0 + (1 << (BITS - 1)) * lowest
        result = ((moved & mask) | base).to(tl.float32, bitcast=True) - offset
    return result


def planes(x: Tensor, words: int, bits: int) -> Tensor:
    """x float32 [rows, n] as float32 [rows, codes in a word + 1, words]: what meets the codes at each place
    of the words, divided as `_code` wants it, and the sums of each word's inputs. Past n stand zeros."""
    rows, inputs = x.shape
    count = 32 // bits
    output = torch.empty(rows, count + 1, words, dtype=torch.float32, device=x.device)
    block = min(128, next_power_of_two(words))
    _planes[(triton.cdiv(words, block), rows)](
        x, output, inputs, words, BITS=bits, COUNT=count, WORDS=block, **FUSED
    )
    return output


@triton.jit
def _planes(
    x: tl.tensor,
    output: tl.tensor,
    inputs: int,
    words: int,
    BITS: tl.constexpr,
    COUNT: tl.constexpr,
    WORDS: tl.constexpr,
) -> None:
    row = tl.program_id(1).to(tl.int64)
    word = (tl.program_id(0) * WORDS + tl.arange(0, WORDS))[:, None]
    place = tl.arange(0, COUNT)[None, :]
    # Of two inputs in a byte the even one is the upper half, so it comes second in a word's bits
    at = word * COUNT + (place ^ 1 if BITS == 4 else place)
    values = tl.load(x + row * inputs + at, mask=at < inputs, other=0.0)
    target = output + row * (COUNT + 1) * words + word
    tl.store(target + COUNT * words, tl.sum(values, axis=1)[:, None], mask=word < words)
    if BITS == 4:
        values *= tl.exp2((-4 * (place % 5)).to(tl.float32))
    elif BITS == 8:
        values *= tl.exp2((-8 * (place % 2)).to(tl.float32))
    tl.store(target + place * words, values, mask=word < words)


@triton.jit
def _signed(codes: tl.tensor, offset: tl.constexpr) -> tl.tensor:
    """Stored codes as float32, less their offset; see `_code`."""
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
