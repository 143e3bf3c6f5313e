"""Compiled from native/quantize. Functions as in pocketglm.quantize.reference; `isa` as in isa_names()."""

import numpy as np
from numpy.typing import NDArray

def quantize(
    weights: NDArray[np.float32],
    importance: NDArray[np.float32] | None,
    bits: int,
    group_size: int,
    symmetric: bool,
    search: bool,
    codes: NDArray[np.uint8],
    alpha: NDArray[np.float16],
    isa: str = "",
) -> None: ...
def dequantize(
    codes: NDArray[np.uint8],
    alpha: NDArray[np.float16],
    bits: int,
    group_size: int,
    out: NDArray[np.float32],
    isa: str = "",
) -> None: ...
def compare(
    original: NDArray[np.float32], stored: NDArray[np.float32], isa: str = ""
) -> tuple[float, float, float, float, float]: ...
def first_unrepresentable(weights: NDArray[np.float32], isa: str = "") -> int:
    """Index of the first value beyond float16's range, NaN included; the number of values if none."""

def isa_names() -> list[str]:
    """Instruction sets this machine can run, best first. "" stands for POCKETGLM_ISA, or the best."""
