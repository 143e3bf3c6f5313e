"""Stored elements become float32 bit for bit as NumPy and torch convert them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketglm.checkpoint.elements import PLAIN_TYPES


def decode(name: str, raw: bytes) -> np.ndarray:
    element = PLAIN_TYPES[name]
    out = np.empty(len(raw) // element.block_bytes, np.float32)
    assert element.decode is not None
    element.decode(np.frombuffer(raw, np.uint8), out)
    return out


def test_every_half_pattern_converts_as_numpy_does() -> None:
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    assert decode("F16", half.tobytes()).tobytes() == half.astype(np.float32).tobytes()


def test_every_bfloat16_pattern_converts_as_torch_does() -> None:
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    expected = bits.view(torch.bfloat16).float().numpy()
    assert decode("BF16", bits.numpy().tobytes()).tobytes() == expected.tobytes()


NUMBERS = {
    "F32": "<f4", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "<u1",
}  # fmt: skip


@pytest.mark.parametrize(("name", "dtype"), NUMBERS.items())
def test_numbers_convert_as_numpy_does(name: str, dtype: str) -> None:
    values = np.array([0, 1, 2, 100, 127], dtype)
    assert decode(name, values.tobytes()).tobytes() == values.astype(np.float32).tobytes()


def test_a_double_outside_float32_becomes_infinite() -> None:
    assert decode("F64", np.array([1e300, -1e300]).tobytes()).tolist() == [np.inf, -np.inf]
