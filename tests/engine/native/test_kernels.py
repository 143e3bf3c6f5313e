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
COUNTS = [1, 2, 3, 4, 5, 6, 7, 10, 12, 13, 14, 33, 64]


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
            x,
            out,
            self.codes,
            self.alpha,
            self.bias,
            *shape,
            first,
            rows if last is None else last,
            step,
            isa,
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


@pytest.mark.parametrize("fmt", [WeightFormat(4, search=False), WeightFormat(8, 128, search=False), *FLOATS])
def test_many_rows(fmt, isa):
    check(make_layer(fmt, 300, 192), activations(257, 192), isa)


@pytest.mark.parametrize("count", [1, 4, 13])
@pytest.mark.parametrize("inputs", [1, 31, 33, 4096, 4100])
@pytest.mark.parametrize("fmt", [QUANTIZED[0], QUANTIZED[2], QUANTIZED[7], QUANTIZED[13], *FLOATS], ids=str)
def test_odd_and_long_inputs(fmt, inputs, count, isa):
    check(make_layer(fmt, 19, inputs), activations(count, inputs), isa)


@pytest.mark.parametrize("count", [2, 17])
@pytest.mark.parametrize("fmt", [WeightFormat(4, 32, search=False), WeightFormat(16)], ids=str)
@pytest.mark.parametrize(
    ("first", "last", "step"), [(0, 1, 1), (5, 44, 7), (64, 130, 32), (129, 130, 1), (9, 9, 1)]
)
def test_ranges_of_channels_leave_the_others_alone(first, last, step, fmt, count, isa):
    check(make_layer(fmt, 130, 96), activations(count, 96), isa, first=first, last=last, step=step)


@pytest.mark.parametrize("count", [3, 20])
@pytest.mark.parametrize(
    "fmt", [WeightFormat(4, search=False), WeightFormat(8, search=False), *FLOATS], ids=str
)
def test_no_bias(fmt, count, isa):
    check(make_layer(fmt, 16, 64, bias=False), activations(count, 64), isa)


@pytest.mark.parametrize("count", [4, 12])
@pytest.mark.parametrize("fmt", [WeightFormat(4, search=False), WeightFormat(8, 0, search=False)], ids=str)
def test_zeros_and_extremes(fmt, count, isa):
    x = activations(count, 256)
    x[0] = 0
    x[1] *= 1e-37
    x[1, :70] = 1e-41  # subnormal: counts as zero
    x[2] *= 1e30
    x[3, 100] = 3e37  # one value that all others of its block vanish beside
    check(make_layer(fmt, 24, 256), x, isa)


@pytest.mark.parametrize("count", [4, 12])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "fmt", [WeightFormat(4, search=False), WeightFormat(8, search=False), *FLOATS], ids=str
)
def test_what_is_not_a_number_stays_in_its_row(fmt, value, count, isa):
    layer, x = make_layer(fmt, 24, 256), activations(count, 256)
    x[1, 77] = value
    out = layer.multiply(x, isa)
    assert not np.isfinite(out[1]).any()
    others = [row for row in range(count) if row != 1]
    assert np.isfinite(out[others]).all()


@pytest.mark.parametrize("fmt", [QUANTIZED[0], QUANTIZED[9]], ids=str)
def test_every_code_is_exact(fmt, isa):
    """The extremes of codes and activations, where narrow sums would saturate."""
    layer = make_layer(fmt, 4, 128)
    layer.codes[:] = np.resize(np.array([0xFF, 0x00, 0xF0, 0x0F, 0x80, 0x7F], np.uint8), len(layer.codes))
    layer.codes[: len(layer.codes) // 4] = 0xFF
    layer.codes[len(layer.codes) // 4 : len(layer.codes) // 2] = 0
    groups = fmt.groups(128)
    layer.alpha[:] = np.ones((4, groups, 1 if fmt.symmetric else 2), np.float16).reshape(-1).view(np.uint8)
    layer.bias[:] = 0
    codes = layer.codes.reshape(4, -1).astype(np.int64)
    if fmt.bits == 4:
        codes = np.stack([codes >> 4, codes & 15], axis=-1).reshape(4, -1)
    weights = codes - (8 if fmt.bits == 4 else 128) + (0 if fmt.symmetric else 1)
    x = np.full((9, 128), 127.0, np.float32)
    x[1::2] = -127
    x[4:, ::3] *= -1
    for count in (1, 9):
        assert (layer.multiply(x[:count], isa) == x[:count] @ weights.T).all()


def test_an_instruction_set_the_machine_lacks_is_refused():
    layer = make_layer(WeightFormat(32), 2, 4)
    with pytest.raises(ValueError, match="POCKETGLM_ISA"):
        layer.multiply(activations(1, 4), "altivec")


def test_measurements(isa):
    layer = make_layer(WeightFormat(8, search=False), 64, 256)
    x = activations(2, 256)
    out = np.empty((2, 64), np.float32)
    shape = (64, 256, 8, 64, False)
    assert _kernels.time_matmul(x, out, layer.codes, layer.alpha, 1, *shape, 2, isa) > 0
    assert _kernels.time_read(layer.codes, 2, isa) > 0
    assert _kernels.dot_product_rate(1000, 2, isa) > 1e6
