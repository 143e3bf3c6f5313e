"""Compiles every kernel for GPUs that need not be there: `python compiling.py 86`.

Triton's own compiler and NVIDIA's assembler, which Triton carries, make the machine code. Prints one line
for each compiled kernel: its name (and whether it works on a float32 cache), the bytes of shared memory
that it takes, and whether it uses tensor cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from engine.contract_specs import SPECS
from pocketglm.architecture.spec import ModelSpec, RotarySpec
from pocketglm.engine.contract import KVType
from pocketglm.engine.torch.cache import CacheLayout
from pocketglm.engine.torch.kernels import attention, elementwise, linear, rotary
from pocketglm.engine.torch.weights import DeviceLinear, DeviceNorm
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
            exact = "-float32" if settings.get("KV") == "float32" else ""
            print(f"{self.__name__}{exact}", kernel.metadata.shared, cores)
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
        for rows in (1, 8, 1024) if form == FORMATS[0] else (1, 1024):
            linear.linear(torch.empty(rows, 4096), empty_layer((16384, 4096), form))


CHATGLM = replace(
    SPECS["prefix_2d_alpha_layernorm_gelu"],
    hidden_size=4096,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
    intermediate_size=16384,
    rotary=RotarySpec("half", 128, 10000.0, axes=2, frequency_dtype="float16"),
)
GLM4 = replace(
    SPECS["sandwich"],
    hidden_size=4096,
    num_heads=32,
    num_kv_heads=2,
    head_dim=128,
    intermediate_size=13696,
    rotary=RotarySpec("interleaved", 64, 10000.0),
)
WIDE = replace(GLM4, head_dim=256, qk_norm=True, rotary=RotarySpec("half", 256, 1e6))


def attend(spec: ModelSpec, kv: KVType, window: int | None) -> None:
    """One row of two sequences, then a prompt."""
    layout = CacheLayout(spec, 28, kv, torch.device("cpu"))
    norm = DeviceNorm(torch.empty(spec.head_dim), None) if spec.qk_norm else None
    for rows in (2, 1024):
        qkv = torch.empty(rows, spec.q_size + 2 * spec.kv_size)
        rotation = torch.empty(2, rows, spec.rotary.dimensions // 2)
        segments = torch.empty(2, rotary.SEGMENT_FIELDS + 16, dtype=torch.int64)
        of_rows = torch.empty(rows, dtype=torch.int32)
        queries = rotary.rotate_write(layout, 3, qkv, rotation, segments, of_rows, norm, norm)
        at_once = attention.tile_rows(layout, rows // 2)
        tiles = torch.empty(max(2, rows // at_once), 2, dtype=torch.int32)
        attention.attention(layout, 3, window, queries, segments, tiles, 8 if rows == 2 else 1, at_once)


def elementwise_kernels(spec: ModelSpec) -> None:
    rows = torch.empty(8, spec.hidden_size)
    norm = DeviceNorm(torch.empty(spec.hidden_size), torch.empty(spec.hidden_size))
    elementwise.norm(spec, rows, norm)
    elementwise.residual_norm(spec, rows, rows, rows, norm if spec.residual == "sandwich" else None, norm)
    elementwise.activation(spec, torch.empty(8, spec.intermediate_size * (2 if spec.gated else 1)))


if __name__ == "__main__":
    compile_instead_of_running()
    triton.runtime.driver.set_active(NamedDriver(int(sys.argv[1])))
    multiply()
    for spec in (CHATGLM, GLM4):
        elementwise_kernels(spec)
    attend(CHATGLM, "float16", window=None)
    attend(GLM4, "int8", window=None)
    attend(replace(WIDE, qk_norm=False), "float16", window=None)
    attend(WIDE, "float32", window=4096)
