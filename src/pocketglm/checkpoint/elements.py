"""How stored elements become float32: one entry a stored type, plain numbers and GGUF blocks alike.

Enters: raw little-endian bytes. Leaves: float32. Plain types are blocks of one element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pocketglm.checkpoint.source import Float32

RawBytes = NDArray[np.uint8]
Decode = Callable[[RawBytes, Float32], None]


@dataclass(frozen=True)
class ElementType:
    """A stored type: `block` elements take `block_bytes` bytes.

    `decode(raw, out)` fills float32 `out` [n * block] from `raw` [n * block_bytes]. It is None for a
    type that is known by size only.
    """

    name: str
    block: int
    block_bytes: int
    decode: Decode | None

    def byte_size(self, elements: int) -> int:
        """Bytes of `elements` elements, a whole number of blocks."""
        return elements // self.block * self.block_bytes


@lru_cache(maxsize=1)
def _half_table() -> Float32:
    """float32 value of each of the 65536 half-precision bit patterns (256 KiB).

    Looking up is more than twice as fast as NumPy's conversion and gives the same bits.
    """
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _decode_f16(raw: RawBytes, out: Float32) -> None:
    np.take(_half_table(), raw.view("<u2"), out=out, mode="wrap")  # "raise" would buffer the output


def _decode_bf16(raw: RawBytes, out: Float32) -> None:
    bits = out.view(np.uint32)
    bits[:] = raw.view("<u2")
    np.left_shift(bits, 16, out=bits)


def _cast_from(dtype: str) -> Decode:
    def decode(raw: RawBytes, out: Float32) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 outside float32 becomes inf
            out[:] = raw.view(dtype)

    return decode


def _plain(name: str, dtype: str) -> ElementType:
    return ElementType(name, 1, np.dtype(dtype).itemsize, _cast_from(dtype))


PLAIN_TYPES: dict[str, ElementType] = {
    entry.name: entry
    for entry in (
        ElementType("F16", 1, 2, _decode_f16),
        ElementType("BF16", 1, 2, _decode_bf16),
        _plain("F32", "<f4"),
        _plain("F64", "<f8"),
        _plain("I8", "<i1"),
        _plain("I16", "<i2"),
        _plain("I32", "<i4"),
        _plain("I64", "<i8"),
        _plain("U8", "<u1"),
        _plain("U16", "<u2"),
        _plain("U32", "<u4"),
        _plain("U64", "<u8"),
        ElementType("BOOL", 1, 1, _cast_from("<u1")),
        ElementType("F8_E4M3", 1, 1, None),
        ElementType("F8_E5M2", 1, 1, None),
    )
}
"""Types of safetensors and torch files, under the names that safetensors gives them."""
