"""Where the bytes of one tensor lie inside a weight file.

A linear layer is stored in MNN's external-weight encoding, its arrays following one another:

    header | codes | alpha | bias

The header (quantized layers only) is what MNN's loader expects before the codes: the number of
dimensions (1 byte), output and stored input size (int16, or int32 where either exceeds 65535), the
length of the code table (1 byte, 0 stands for 256) and the table (int8, ascending). Codes begin on a
64-byte boundary. int4 codes are stored as code + 8, the even input in the high nibble; int8 codes as
code + 128; float weights as little-endian float16 or float32. alpha is float16 [out, groups, 2] as
(zero, scale), or [out, groups, 1] as scale where the format is symmetric. bias is float32 [out];
float32 layers always have one (zeros where the model has none), because MNN reads it regardless.
Source of the encoding: MNN 3.6 (`source/core/ConvolutionCommon.cpp`), measured against its runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pocketglm.quantize.formats import WeightFormat

ALIGNMENT = 64
"""A cache line, and the widest vector register of any supported CPU."""


@dataclass(frozen=True)
class LinearEntry:
    """A linear layer [out, in] at `offset` (its first byte: the header, or the float weights)."""

    name: str
    shape: tuple[int, int]
    offset: int
    format: WeightFormat
    bias: bool

    @property
    def stored_inputs(self) -> int:
        return self.format.stored_inputs(self.shape[1])

    @property
    def header_bytes(self) -> int:
        return len(linear_header(self)) if self.format.quantized else 0

    @property
    def codes_offset(self) -> int:
        return self.offset + self.header_bytes

    @property
    def codes_bytes(self) -> int:
        return self.shape[0] * self.format.code_bytes(self.shape[1])

    @property
    def alpha_offset(self) -> int:
        return self.codes_offset + self.codes_bytes

    @property
    def alpha_bytes(self) -> int:
        return self.shape[0] * self.format.alpha_values(self.shape[1]) * 2

    @property
    def bias_offset(self) -> int:
        return self.alpha_offset + self.alpha_bytes

    @property
    def bias_bytes(self) -> int:
        return 4 * self.shape[0] if self.bias or self.format.bits == 32 else 0

    @property
    def end(self) -> int:
        return self.bias_offset + self.bias_bytes


@dataclass(frozen=True)
class VectorEntry:
    """A float32 vector (norm weight or bias) at `offset`."""

    name: str
    shape: tuple[int]
    offset: int

    @property
    def end(self) -> int:
        return self.offset + 4 * self.shape[0]


TensorEntry = LinearEntry | VectorEntry


def linear_header(entry: LinearEntry) -> bytes:
    """The bytes MNN reads before the codes of a quantized layer."""
    out, stored = entry.shape[0], entry.stored_inputs
    levels = 1 << entry.format.bits
    table = np.arange(-(levels // 2), levels // 2, dtype=np.int8)
    sizes = np.array([out, stored], "<i4" if max(out, stored) > 0xFFFF else "<u2")
    return bytes([2]) + sizes.tobytes() + bytes([levels & 0xFF]) + table.tobytes()


def align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
