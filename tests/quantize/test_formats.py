"""Sizes of stored rows."""

from __future__ import annotations

import pytest

from pocketglm.errors import InputError
from pocketglm.quantize.formats import WeightFormat


@pytest.mark.parametrize(
    ("fmt", "inputs", "stored", "groups", "code_bytes", "alpha_values"),
    [
        (WeightFormat(4, 64), 4096, 4096, 64, 2048, 128),
        (WeightFormat(4, 64), 172, 192, 3, 96, 6),
        (WeightFormat(8, 128, symmetric=True), 172, 256, 2, 256, 2),
        (WeightFormat(4, 0), 172, 192, 1, 96, 2),
        (WeightFormat(8, 0), 1, 32, 1, 32, 2),
        (WeightFormat(16), 172, 172, 2, 344, 0),
        (WeightFormat(32), 172, 172, 2, 688, 0),
    ],
)
def test_sizes(fmt, inputs, stored, groups, code_bytes, alpha_values):
    assert fmt.stored_inputs(inputs) == stored
    assert fmt.code_bytes(inputs) == code_bytes
    assert fmt.alpha_values(inputs) == alpha_values
    assert not fmt.quantized or fmt.groups(inputs) == groups


@pytest.mark.parametrize(("bits", "group"), [(5, 64), (4, 16), (4, -1)])
def test_unknown_formats_are_refused(bits, group):
    with pytest.raises(InputError, match="expected"):
        WeightFormat(bits, group)
