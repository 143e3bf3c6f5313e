"""Compiles every launch of a function for GPUs that need not be there: `python compiling.py 80`.

Triton's own compiler and NVIDIA's assembler, which Triton carries, make the machine code. Prints one line
for each compiled kernel: its name, the bytes of shared memory it takes, and whether it uses tensor cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from pocketglm.engine.torch.kernels import linear
from pocketglm.engine.torch.weights import DeviceLinear
from pocketglm.quantize.formats import WeightFormat

FORMATS = [WeightFormat(4), WeightFormat(4, 0, symmetric=True), WeightFormat(8, 128), WeightFormat(16)]


class NamedDriver:
    """Stands for a GPU of a compute capability; nothing can be launched on it."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def compile_instead_of_running() -> None:
    run: Callable[..., Any] = JITFunction.run
    seen = set()

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **settings: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **settings)
        if kernel.hash not in seen:
            seen.add(kernel.hash)
            cores = "tensor-cores" if "mma" in kernel.asm["ptx"] else "-"
            print(self.__name__, kernel.metadata.shared, cores)
        return kernel

    JITFunction.run = compiled


def empty_layer(shape: tuple[int, int], form: WeightFormat) -> DeviceLinear:
    outputs, inputs = shape
    bias = torch.empty(outputs)
    if not form.quantized:
        return DeviceLinear(shape, form, torch.empty(shape, dtype=torch.float16), None, bias)
    codes = torch.empty(outputs, form.code_bytes(inputs), dtype=torch.uint8)
    values = 1 if form.symmetric else 2
    alpha = torch.empty(outputs, form.groups(inputs), values, dtype=torch.float16)
    return DeviceLinear(shape, form, codes, alpha, bias)


def multiply() -> None:
    """ChatGLM-6B's largest layer: a token, a batch, a prompt."""
    for form in FORMATS:
        for rows in (1, 8, 1024) if form.bits == 4 else (1, 1024):
            linear.linear(torch.empty(rows, 4096), empty_layer((16384, 4096), form))


if __name__ == "__main__":
    compile_instead_of_running()
    triton.runtime.driver.set_active(NamedDriver(int(sys.argv[1])))
    multiply()
