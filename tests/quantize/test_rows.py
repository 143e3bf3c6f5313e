"""Rows to codes and back: the stored bytes, the error, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketglm.errors import InputError
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.quantizer import Quantizer, ScaleSearch
from pocketglm.quantize.rows import QuantizedRows, dequantize_rows, quantize_rows

NEAREST = WeightFormat(search=False)


def squared_errors(weights, fmt, importance=None):
    """Squared error of every group [rows, groups], in float64, of what is really stored."""
    rows, inputs = weights.shape
    stored = dequantize_rows(quantize_rows(weights, fmt, importance), fmt, inputs).astype(np.float64)
    squares = (stored - weights) ** 2 * (1.0 if importance is None else importance)
    padding = fmt.stored_inputs(inputs) - inputs
    return np.pad(squares, ((0, 0), (0, padding))).reshape(rows, fmt.groups(inputs), -1).sum(-1)


def relative_error(weights, fmt):
    return float(np.sqrt(squared_errors(weights, fmt).sum() / (weights.astype(np.float64) ** 2).sum()))


def test_int4_bytes_by_hand():
    """-8..7 and half steps around them: scale 1, zero 0; the even input is the high nibble."""
    weights = np.zeros((1, 32), np.float32)
    weights[0, :4] = [-8, 7, -7.4, 3]
    rows = quantize_rows(weights, WeightFormat(4, 32, search=False))
    assert rows.codes[0, :3].tolist() == [0x0F, 0x1B, 0x88]
    assert rows.alpha.tolist() == [[[0.0, 1.0]]]


def test_int8_bytes_by_hand():
    weights = np.zeros((1, 32), np.float32)
    weights[0, :3] = [-128, 127, 1]
    rows = quantize_rows(weights, WeightFormat(8, 32, search=False))
    assert rows.codes[0, :4].tolist() == [0, 255, 129, 128]
    assert rows.alpha.tolist() == [[[0.0, 1.0]]]


def test_symmetric_codes_have_no_zero_and_no_extra_negative():
    weights = np.linspace(-14, 7, 32, dtype=np.float32)[None]
    rows = quantize_rows(weights, WeightFormat(4, 32, symmetric=True, search=False))
    assert rows.alpha.tolist() == [[[2.0]]]
    assert rows.codes[0, 0] >> 4 == 1  # -7
    assert dequantize_rows(rows, WeightFormat(4, 32, symmetric=True), 32)[0, 0] == -14


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("search", [True, False])
def test_padding_is_code_zero_and_leaves_the_fit_alone(bits, search):
    weights = np.random.default_rng(0).standard_normal((4, 96)).astype(np.float32) + 5
    whole = quantize_rows(weights, WeightFormat(bits, 32, search=search))
    short = quantize_rows(weights[:, :70].copy(), WeightFormat(bits, 32, search=search))
    assert np.array_equal(whole.alpha[:, :2], short.alpha[:, :2])
    assert (short.codes[:, -26 * bits // 8 :] == (0x88 if bits == 4 else 0x80)).all()
    stored = dequantize_rows(short, WeightFormat(bits, 32), 70)
    assert np.abs(stored - weights[:, :70]).max() < (0.5 if bits == 4 else 0.03)


def test_rows_are_independent():
    weights = np.random.default_rng(1).standard_normal((6, 172)).astype(np.float32)
    whole = quantize_rows(weights, WeightFormat())
    parts = [quantize_rows(weights[i : i + 2], WeightFormat()) for i in (0, 2, 4)]
    assert np.array_equal(whole.codes, np.concatenate([part.codes for part in parts]))
    assert np.array_equal(whole.alpha, np.concatenate([part.alpha for part in parts]))


WEIGHTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 80)),
    elements=st.one_of(st.floats(-2, 2, width=32), st.floats(-65504, 65504, width=32), st.just(1e-7)),
)
FORMATS = st.builds(
    WeightFormat, bits=st.sampled_from([4, 8]), group=st.sampled_from([32, 64, 0]), symmetric=st.booleans()
)


@given(weights=WEIGHTS, fmt=FORMATS, weighted=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=300)
def test_search_is_never_worse_than_nearest_on_any_group(weights, fmt, weighted, seed):
    importance = None
    if weighted:
        importance = np.random.default_rng(seed).random(weights.shape[1]).astype(np.float32)
    nearest = WeightFormat(fmt.bits, fmt.group, fmt.symmetric, search=False)
    searched = squared_errors(weights, fmt, importance)
    rounded = squared_errors(weights, nearest, importance)
    # The kernel compares float32 sums, and reading back rounds each weight once more.
    slack = weights.shape[1] * (np.abs(weights).max() * 2.0**-23) ** 2 + 1e-30
    assert (searched <= rounded * (1 + 1e-5) + slack).all()


@given(weights=WEIGHTS, fmt=FORMATS)
@settings(deadline=None, max_examples=200)
def test_stored_values_are_finite_and_scales_positive(weights, fmt):
    rows = quantize_rows(weights, fmt)
    assert np.isfinite(rows.alpha).all()
    assert (rows.alpha[..., -1] > 0).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 65504.0, -65504.0, 1e-7, 2.0**-24])
@pytest.mark.parametrize("search", [True, False])
def test_equal_weights_come_back(value, search):
    weights = np.full((2, 64), value, np.float32)
    fmt = WeightFormat(search=search)
    stored = dequantize_rows(quantize_rows(weights, fmt), fmt, 64)
    assert np.abs(stored - weights).max() <= max(abs(value) * 2.0**-12, 2.0**-25)


def test_subnormal_scales_do_not_vanish():
    """The range needs a scale of 1.3e-8, less than the least float16; its ends must not turn to 0."""
    weights = np.zeros((1, 32), np.float32)
    weights[0, :2] = [-1e-7, 1e-7]
    for symmetric in (True, False):
        fmt = WeightFormat(4, 32, symmetric)
        stored = dequantize_rows(quantize_rows(weights, fmt), fmt, 32)
        assert np.sign(stored[0, :3]).tolist() == [-1, 1, 0]


def test_narrow_range_far_from_zero_is_covered():
    """Between 1000 and 1001 a float16 zero is off by up to 0.25: the scale must make up for it."""
    weights = np.linspace(1000.2, 1001.3, 64, dtype=np.float32)[None]
    for bits, ceiling in ((4, 0.1), (8, 0.02)):
        fmt = WeightFormat(bits, 64)
        stored = dequantize_rows(quantize_rows(weights, fmt), fmt, 64)
        assert np.abs(stored - weights).max() < ceiling


def test_one_outlier_costs_its_own_group_only():
    weights = np.random.default_rng(2).standard_normal((1, 128)).astype(np.float32)
    before = squared_errors(weights, WeightFormat())
    weights[0, 3] = 500
    after = squared_errors(weights, WeightFormat())
    assert after[0, 1] == before[0, 1]
    stored = dequantize_rows(quantize_rows(weights, WeightFormat()), WeightFormat(), 128)
    assert abs(stored[0, 3] - 500) < 20


@pytest.mark.parametrize(("bits", "ceiling"), [(4, 0.085), (8, 0.0051)])
def test_search_lowers_the_error_of_gaussian_weights(bits, ceiling):
    weights = np.random.default_rng(3).standard_normal((256, 1024)).astype(np.float32)
    searched = relative_error(weights, WeightFormat(bits, 64))
    assert searched < ceiling
    assert searched < 0.93 * relative_error(weights, WeightFormat(bits, 64, search=False))


def test_importance_moves_error_away_from_important_columns():
    weights = np.random.default_rng(4).standard_normal((64, 256)).astype(np.float32)
    importance = np.where(np.arange(256) % 8 == 0, 100, 1).astype(np.float32)
    plain = dequantize_rows(quantize_rows(weights, WeightFormat()), WeightFormat(), 256)
    tuned = dequantize_rows(quantize_rows(weights, WeightFormat(), importance), WeightFormat(), 256)
    important = slice(0, None, 8)
    gain = ((tuned - weights)[:, important] ** 2).sum() / ((plain - weights)[:, important] ** 2).sum()
    assert gain < 0.6


def test_importance_counts_only_in_proportion():
    weights = np.random.default_rng(6).standard_normal((4, 100)).astype(np.float32)
    importance = np.random.default_rng(7).random(100).astype(np.float32)
    once = quantize_rows(weights, WeightFormat(), importance)
    scaled = quantize_rows(weights, WeightFormat(), importance * np.float32(2.0**100))
    assert np.array_equal(once.codes, scaled.codes)
    nothing = quantize_rows(weights, WeightFormat(), np.zeros(100, np.float32))
    equal = quantize_rows(weights, WeightFormat(), np.ones(100, np.float32))
    assert np.array_equal(nothing.codes, equal.codes)
    assert np.array_equal(equal.codes, quantize_rows(weights, WeightFormat()).codes)


def test_dequantize_writes_into_out():
    weights = np.random.default_rng(8).standard_normal((3, 33)).astype(np.float32)
    rows = quantize_rows(weights, NEAREST)
    out = np.empty((3, 33), np.float32)
    assert dequantize_rows(rows, NEAREST, 33, out) is out
    assert np.array_equal(out, dequantize_rows(rows, NEAREST, 33))


def test_read_only_and_strided_weights_are_taken():
    weights = np.random.default_rng(9).standard_normal((64, 4)).astype(np.float32)
    weights.flags.writeable = False
    assert np.array_equal(
        quantize_rows(weights.T, NEAREST).codes, quantize_rows(weights.T.copy(), NEAREST).codes
    )
    rows = quantize_rows(weights, NEAREST)
    rows.codes.flags.writeable = rows.alpha.flags.writeable = False
    assert dequantize_rows(rows, NEAREST, 4).shape == (64, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_place(value):
    weights = np.ones((5, 40), np.float32)
    weights[3, 17] = value
    with pytest.raises(InputError, match=r"row 3, column 17 .* not a finite number"):
        quantize_rows(weights, WeightFormat())


def test_weights_beyond_float16_are_refused_by_place():
    weights = np.ones((5, 40), np.float32)
    weights[4, 0] = -70000
    with pytest.raises(InputError, match=r"row 4, column 0 is -70000: it exceeds .* 65504"):
        quantize_rows(weights, WeightFormat())


@pytest.mark.parametrize("bits", [16, 32])
def test_float_formats_are_refused(bits):
    with pytest.raises(InputError, match=f"float{bits}"):
        quantize_rows(np.ones((1, 32), np.float32), WeightFormat(bits))


def test_shapes_that_do_not_fit_are_refused():
    weights = np.ones((2, 64), np.float32)
    rows = quantize_rows(weights, WeightFormat())
    short = np.ones(63, np.float32)
    for wrong in (
        lambda: quantize_rows(weights[0], WeightFormat()),
        lambda: quantize_rows(weights[:0], WeightFormat()),
        lambda: quantize_rows(weights, WeightFormat(), short),
        lambda: quantize_rows(weights, WeightFormat(), -np.ones(64, np.float32)),
        lambda: quantize_rows(weights, WeightFormat(), np.full(64, np.nan, np.float32)),
        lambda: dequantize_rows(rows, WeightFormat(), 65),
        lambda: dequantize_rows(rows, WeightFormat(symmetric=True), 64),
        lambda: dequantize_rows(QuantizedRows(rows.codes, rows.alpha[:1]), WeightFormat(), 64),
        lambda: dequantize_rows(rows, WeightFormat(), 64, np.empty((2, 63), np.float32)),
        lambda: dequantize_rows(rows, WeightFormat(), 64, np.empty((2, 64), np.float64)),
    ):
        with pytest.raises(InputError, match=r"expected|must be"):
            wrong()


def test_scale_search_is_a_quantizer():
    quantizer: Quantizer = ScaleSearch(WeightFormat())
    weights = np.random.default_rng(10).standard_normal((2, 64)).astype(np.float32)
    assert np.array_equal(quantizer.quantize(weights).codes, quantize_rows(weights, WeightFormat()).codes)


def test_trained_weights_gain_from_the_search(shared_data):
    from safetensors.numpy import load_file

    tensors = load_file(shared_data / "stories260k" / "model.safetensors")
    matrices = [tensor.astype(np.float32) for tensor in tensors.values() if tensor.ndim == 2]
    for symmetric in (False, True):
        errors = [
            sum(squared_errors(m, WeightFormat(4, 64, symmetric, search)).sum() for m in matrices)
            for search in (True, False)
        ]
        assert errors[0] < 0.87 * errors[1]
