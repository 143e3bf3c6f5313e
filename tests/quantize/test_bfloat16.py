"""bfloat16 conversion against PyTorch's and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketglm.errors import InputError
from pocketglm.quantize.bfloat16 import from_bfloat16, to_bfloat16


def test_every_bfloat16_comes_back():
    bits = np.arange(65536, dtype=np.uint16)
    values = from_bfloat16(bits)
    returned = to_bfloat16(values)
    quiet = np.where(np.isnan(values), bits | 0x40, bits)  # a signalling NaN turns quiet
    assert np.array_equal(returned, quiet)


def test_rounds_as_pytorch_does():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(to_bfloat16(values), expected)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x3F808000, 0x3F80),  # a tie goes to the even neighbour, down
        (0x3F818000, 0x3F82),  # and up
        (0x3F808001, 0x3F81),
        (0x7F7FFFFF, 0x7F80),  # past the greatest: infinity
        (0x7F800000, 0x7F80),
        (0x7F800001, 0x7FC0),  # a NaN with its payload in the lost bits
        (0xFFFFFFFF, 0xFFFF),
        (0x80000000, 0x8000),
    ],
)
def test_single_values(bits, expected):
    value = np.array([bits], np.uint32).view(np.float32)
    assert to_bfloat16(value)[0] == expected


@given(st.floats(-(2.0**126), 2.0**126, width=32))
def test_nearest_of_the_neighbours(value):
    number = np.array([value], np.float32)
    rounded = to_bfloat16(number)
    distance = abs(float(from_bfloat16(rounded)[0]) - value)
    for step in (-1, 1):
        neighbour = from_bfloat16((rounded.astype(np.int32) + step).astype(np.uint16))
        assert not np.isfinite(neighbour[0]) or distance <= abs(float(neighbour[0]) - value)


def test_shape_is_kept_and_other_types_are_refused():
    assert to_bfloat16(np.zeros((3, 4), np.float32)[:, ::2]).shape == (3, 2)
    with pytest.raises(InputError, match="float64"):
        to_bfloat16(np.zeros(3))
    with pytest.raises(InputError, match="int16"):
        from_bfloat16(np.zeros(3, np.int16))
