"""The matrix kernels: op x shape x format x instruction set against float64 NumPy.

Two ceilings. Against a computation that quantizes the activations in the same way, only float32 sums
differ: 1e-5 of the sum of the terms' magnitudes. Against the exact product, 8-bit activations err by at
most half a step of their block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketglm.engine.native import _kernels
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import dequantize_rows, quantize_rows

CEILING = 1e-5
QUANTIZED = [
    WeightFormat(bits, group, symmetric, search=False)
    for bits, group, symmetric in itertools.product((4, 8), (32, 64, 128, 0), (False, True))
]
FLOATS = [WeightFormat(16), WeightFormat(32)]
COUNTS = [1, 2, 3, 4, 5, 7, 12, 13, 33, 64]


@dataclass
class Layer:
    """A linear layer with random weights, as a package stores it, and what it stands for."""

    format: WeightFormat
    codes: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    bias: NDArray[np.uint8]
    weights: NDArray[np.float64]  # [rows, inputs], after quantization
    offsets: NDArray[np.float64]  # [rows], the bias

    def multiply(self, x, isa, first=0, last=None, step=0):
        rows, inputs = self.weights.shape
        out = np.full((len(x), rows), np.float32(7e7))
        group = self.format.group_size(inputs) if self.format.quantized else 0
        shape = (rows, inputs, self.format.bits, group, self.format.symmetric)
        _kernels.matmul(
            x, out, self.codes, self.alpha, self.bias, *shape, first, rows if last is None else last, step, isa
        )
        return out


def make_layer(fmt: WeightFormat, rows: int, inputs: int, bias: bool = True, seed: int = 0) -> Layer:
    random = np.random.default_rng(seed)
    weights = (random.standard_normal((rows, inputs)) + 0.3).astype(np.float32)
    offsets = random.standard_normal(rows).astype(np.float32) * bias
    nothing = np.empty(0, np.uint8)
    if fmt.quantized:
        quantized = quantize_rows(weights, fmt)
        codes, alpha = quantized.codes.reshape(-1), quantized.alpha.reshape(-1).view(np.uint8)
        stored = dequantize_rows(quantized, fmt, inputs)
    else:
        values = weights.astype(np.float16 if fmt.bits == 16 else np.float32)
        codes, alpha, stored = values.reshape(-1).view(np.uint8), nothing, values
    # As in a mapped file, where the bias follows whatever came before: not aligned.
    moved = np.empty(4 * rows + 2, np.uint8)[2:]
    moved[:] = offsets.view(np.uint8)
    return Layer(fmt, codes, alpha, moved if bias else nothing, stored.astype(np.float64), offsets)


def block_size(fmt: WeightFormat, inputs: int) -> int:
    group = fmt.group_size(inputs)
    return next(size for size in (128, 64, 32) if group % size == 0)


def quantized_activations(x, fmt: WeightFormat):
    """x rounded to 8 bits per block as the kernels do, and the block's step, both [count, inputs]."""
    count, inputs = x.shape
    size = block_size(fmt, inputs)
    padded = np.zeros((count, fmt.stored_inputs(inputs)), np.float32)
    padded[:, :inputs] = x
    blocks = padded.reshape(count, -1, size)
    largest = np.abs(blocks).max(-1, keepdims=True)
    used = largest >= 2.0**-120
    inverse = np.where(used, np.float32(127) / np.where(used, largest, np.float32(1)), np.float32(0))
    steps = np.where(used, largest / np.float32(127), np.float32(0)).astype(np.float64)
    rounded = np.rint(blocks * inverse).astype(np.float64) * steps
    spread = np.broadcast_to(steps, blocks.shape)
    return [array.reshape(count, -1)[:, :inputs] for array in (rounded, spread)]


def check(layer: Layer, x, isa: str, **ranges) -> None:
    out = layer.multiply(x, isa, **ranges)
    first, last = ranges.get("first", 0), ranges.get("last", len(layer.weights))
    assert (out[:, :first] == np.float32(7e7)).all()
    assert (out[:, last:] == np.float32(7e7)).all()
    weights, offsets, out = layer.weights[first:last], layer.offsets[first:last], out[:, first:last]
    magnitudes = np.abs(x.astype(np.float64)) @ np.abs(weights).T + np.abs(offsets)
    exact = x.astype(np.float64) @ weights.T + offsets
    if not layer.format.quantized:
        assert (np.abs(out - exact) <= CEILING * magnitudes).all()
        return
    rounded, steps = quantized_activations(x, layer.format)
    # The kernels compute with unsigned codes: the middle code's part cancels, its rounding stays.
    peak = np.abs(layer.weights).max()
    magnitudes += peak * np.abs(x.astype(np.float64)).sum(-1, keepdims=True)
    assert (np.abs(out - (rounded @ weights.T + offsets)) <= CEILING * magnitudes).all()
    allowed = (0.5 + 1e-4) * steps @ np.abs(weights).T + CEILING * magnitudes + 127 * 2.0**-120 * peak
    assert (np.abs(out - exact) <= allowed).all()


def activations(count: int, inputs: int, seed: int = 1):
    return np.random.default_rng(seed).standard_normal((count, inputs)).astype(np.float32)


@pytest.fixture(params=_kernels.isa_names())
def isa(request) -> str:
    return request.param


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("fmt", QUANTIZED + FLOATS, ids=str)
def test_products(fmt, count, isa):
    for rows, inputs in [(40, 256), (33, 172)]:
        check(make_layer(fmt, rows, inputs), activations(count, inputs), isa)
