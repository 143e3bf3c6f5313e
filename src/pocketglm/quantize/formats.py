"""How a weight is stored: bits, group size, symmetric or not. The words every later stage uses.

A quantized weight is `code * scale + zero`, with one (scale, zero) per group of inputs of one output
row. Codes are signed: -8..7 for int4 (stored as code + 8 in a nibble), -128..127 for int8 (stored as
code + 128 in a byte). Symmetric formats have no zero and use -7..7 and -127..127. A row is always whole
groups: inputs are padded to a multiple of the group with codes that stand for nothing (the engine's
activations are zero there), so that no kernel has a tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketglm.errors import InputError

GROUPS = (32, 64, 128, 0)
"""Supported group sizes; 0 stands for one group per row."""

ROW_MULTIPLE = 32
"""A per-row group is padded to a multiple of this, the widest step of any kernel."""

Bits = Literal[32, 16, 8, 4]


@dataclass(frozen=True)
class WeightFormat:
    """Storage of one linear layer's weight. `group` and `symmetric` matter for 8 and 4 bits only."""

    bits: Bits = 4
    group: int = 64
    symmetric: bool = False
    search: bool = True  # choose scale and zero by least error; False: round to nearest

    def __post_init__(self) -> None:
        if self.bits not in (32, 16, 8, 4):
            raise InputError(f"bits is {self.bits}, expected 32, 16, 8 or 4")
        if self.group not in GROUPS:
            raise InputError(f"group is {self.group}, expected 32, 64, 128, or 0 for one group per row")

    @property
    def quantized(self) -> bool:
        return self.bits < 16

    def stored_inputs(self, inputs: int) -> int:
        """Input size as stored: padded to whole groups (per row: to a multiple of 32)."""
        multiple = (self.group or ROW_MULTIPLE) if self.quantized else 1
        return -(-inputs // multiple) * multiple

    def group_size(self, inputs: int) -> int:
        """Elements of one group as stored."""
        return self.group or self.stored_inputs(inputs)

    def groups(self, inputs: int) -> int:
        """Groups in one row."""
        return self.stored_inputs(inputs) // self.group_size(inputs)

    def code_bytes(self, inputs: int) -> int:
        """Bytes of codes (or float weights) in one row."""
        return self.stored_inputs(inputs) * self.bits // 8

    def alpha_values(self, inputs: int) -> int:
        """float16 scales and zeros of one row: 2 per group, 1 where symmetric, 0 for float weights."""
        return self.groups(inputs) * (1 if self.symmetric else 2) if self.quantized else 0
