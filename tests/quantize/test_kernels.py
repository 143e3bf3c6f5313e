"""The native kernels give the bytes of the NumPy reference, on every instruction set of the machine."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketglm.quantize import native, reference
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import stored_importance

ROWS = 3
FORMATS = [
    WeightFormat(bits, group, symmetric, search)
    for bits, group, symmetric, search in itertools.product(
        (4, 8), (32, 64, 128, 0), (False, True), (False, True)
    )
]


def outputs(weights, importance, fmt, quantize, dequantize):
    """Codes, alpha and the weights read back, from one implementation."""
    rows, inputs = weights.shape
    codes = np.full((rows, fmt.code_bytes(inputs)), 0xA5, np.uint8)
    alpha = np.full((rows, fmt.groups(inputs), 1 if fmt.symmetric else 2), 7, np.float16)
    group = fmt.group_size(inputs)
    quantize(weights, importance, fmt.bits, group, fmt.symmetric, fmt.search, codes, alpha)
    out = np.full_like(weights, np.nan)
    dequantize(codes, alpha, fmt.bits, group, out)
    return codes, alpha, out


def with_isa(function, isa):
    return lambda *arguments: function(*arguments, isa=isa)


def assert_same_bytes(weights, fmt, importance=None):
    importance = stored_importance(importance, weights.shape[1], fmt)
    expected = outputs(weights, importance, fmt, reference.quantize, reference.dequantize)
    for isa in native.isa_names():
        kernels = (with_isa(native.quantize, isa), with_isa(native.dequantize, isa))
        found = outputs(weights, importance, fmt, *kernels)
        for name, a, b in zip(("codes", "alpha", "weights"), expected, found, strict=True):
            assert a.tobytes() == b.tobytes(), f"{name} differ on {isa} for {fmt}"


@pytest.mark.parametrize("inputs", [1, 33, 64, 172])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_bytes_are_the_reference_s(fmt, inputs):
    random = np.random.default_rng(inputs)
    weights = (random.standard_normal((ROWS, inputs)) * 10.0 ** random.integers(-6, 3, (ROWS, 1))).astype(
        "f4"
    )
    assert_same_bytes(weights, fmt)
    assert_same_bytes(weights, fmt, random.random(inputs).astype(np.float32) ** 4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [64, 0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_bytes_of_long_rows_are_the_reference_s(bits, group, symmetric):
    weights = np.random.default_rng(5).laplace(size=(2, 4096)).astype(np.float32)
    assert_same_bytes(weights, WeightFormat(bits, group, symmetric))


EDGE_VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 65504.0, -65504.0, 1e-7, -1e-7, 6e-8, 1e-30, 1e-44, 1000.0, 1000.5, 1001.0]),
    st.floats(-65504, 65504, width=32),
    st.floats(-1, 1, width=32),
)


@given(
    weights=arrays(np.float32, st.tuples(st.just(1), st.integers(1, 70)), elements=EDGE_VALUES),
    fmt=st.sampled_from(FORMATS),
)
@settings(deadline=None, max_examples=300)
def test_bytes_of_edge_values_are_the_reference_s(weights, fmt):
    assert_same_bytes(weights, fmt)


@pytest.mark.parametrize("inputs", [1, 255, 256, 1000])
def test_comparison_is_the_reference_s_to_the_bit(inputs):
    random = np.random.default_rng(inputs)
    original, stored = random.standard_normal((2, 5, inputs)).astype(np.float32)
    expected = reference.compare(original, stored)
    for isa in native.isa_names():
        assert native.compare(original, stored, isa) == expected


def test_first_unrepresentable_value_is_found():
    for isa, place in itertools.product(native.isa_names(), (0, 255, 256, 700, 998)):
        for value in (np.nan, np.inf, -np.inf, np.float32(65505), np.float32(-1e38)):
            weights = np.full((3, 333), 65504, np.float32)
            assert native.first_unrepresentable(weights, isa) == weights.size
            weights.flat[place] = value
            assert native.first_unrepresentable(weights, isa) == place


def test_dequantize_knows_every_float16():
    """All 65536 scales, at code 1."""
    alpha = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(-1, 1, 1)
    alpha = alpha[np.isfinite(alpha[:, 0, 0])]
    codes = np.full((len(alpha), 32), 129, np.uint8)
    for isa in native.isa_names():
        out = np.empty((len(alpha), 32), np.float32)
        native.dequantize(codes, alpha, 8, 32, out, isa)
        expected = alpha[:, 0, 0].astype(np.float32) + np.float32(0)  # the zero of a symmetric format
        assert out[:, 0].tobytes() == expected.tobytes()


def test_arrays_that_do_not_fit_are_refused():
    weights = np.zeros((2, 64), np.float32)
    codes, alpha = np.zeros((2, 32), np.uint8), np.zeros((2, 1, 2), np.float16)
    fitting = (weights, None, 4, 64, False, True, codes, alpha)
    native.quantize(*fitting)
    for position, value in {
        1: np.ones(63, np.float32),
        2: 5,
        3: 33,
        4: True,
        6: codes[:, :31].copy(),
        7: alpha[:1].copy(),
    }.items():
        wrong = [*fitting[:position], value, *fitting[position + 1 :]]
        with pytest.raises(ValueError, match=r"\w"):
            native.quantize(*wrong)


def test_instruction_set_is_chosen_by_the_environment():
    script = (
        "import numpy as np; from pocketglm.quantize import native;"
        "native.first_unrepresentable(np.zeros((1, 1), np.float32))"
    )
    for name, expected in (("baseline", 0), ("no-such-isa", 1)):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "POCKETGLM_ISA": name},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stderr
        assert expected == 0 or "POCKETGLM_ISA" in done.stderr


def test_missing_kernels_give_the_command_that_builds_them():
    script = "import sys; sys.modules['pocketglm.quantize._kernels'] = None; import pocketglm.quantize.native"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "native quantize kernels are missing" in done.stderr
