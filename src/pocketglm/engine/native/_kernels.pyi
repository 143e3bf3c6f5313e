"""Compiled from native/engine: the matrix kernels by themselves. `isa` as in isa_names()."""

import numpy as np
from numpy.typing import NDArray

def matmul(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    codes: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    bias: NDArray[np.uint8],
    rows: int,
    inputs: int,
    bits: int,
    group: int,
    symmetric: bool,
    first: int,
    last: int,
    step: int = 0,
    isa: str = "",
) -> None:
    """out[:, first:last] = x @ W[first:last].T + bias[first:last], in ranges of `step` channels (0: one).

    `codes`, `alpha` and `bias` are the bytes of a linear layer as docs/package-format.md has them; an
    empty `bias` stands for none. `group` is the number of inputs of one group as stored.
    """

def isa_names() -> list[str]:
    """Instruction sets this machine can run, best first. "" stands for POCKETGLM_ISA, or the best."""

def time_matmul(
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    codes: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    copies: int,
    rows: int,
    inputs: int,
    bits: int,
    group: int,
    symmetric: bool,
    threads: int,
    isa: str = "",
) -> float:
    """Seconds for x @ W.T with `copies` matrices that follow one another in `codes` and `alpha`."""

def time_read(memory: NDArray[np.uint8], threads: int, isa: str = "") -> float:
    """Seconds to read an array once."""

def dot_product_rate(rounds: int, threads: int, isa: str = "") -> float:
    """Multiplications and additions of bytes per second, in registers; one thread does `rounds` rounds."""
