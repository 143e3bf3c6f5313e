"""How the native engine divides the memory that it is allowed, before it loads anything.

Enters: a package and the options. Leaves: limits for the stage and for the head, or `EngineError` with
the least that works. The sizes follow native/engine: kv_layout.h, forward_pass.cpp, weight_store.cpp.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pocketglm.engine.contract import EngineOptions, KVType
from pocketglm.errors import EngineError
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import Package

PAGE_POSITIONS = 64
HUGE_PAGE = 2 << 20
STREAM_BUFFERS = 2
SLICE_ROWS = 512

HEAD_BUFFERS = 8 << 20
"""Bytes that the head's activations take at most, for a few rows at a time."""

SCRATCH_BYTES = 12 << 20
"""Work memory of one thread at most: unpacked panels of weights, scores of attention."""

UNPLANNED_CONTEXT = 256
"""Tokens that caches have room for where the options do not say."""


@dataclass(frozen=True)
class MemoryLimits:
    """Bytes; 0 stands for no limit. Of `stage`, `stage_reserve` is kept for caches and work memory."""

    stage: int = 0
    stage_reserve: int = 0
    head: int = 0
    head_reserve: int = 0


def plan_memory(package: Package, blocks: range, kv: KVType, options: EngineOptions) -> MemoryLimits:
    """Raises `EngineError` where the limit is too small, with what would do."""
    left = options.memory_left
    if left is None:
        return MemoryLimits()
    sizes = [package.manifest.files[block_file(index)].size for index in blocks]
    weights = min(sum(sizes), STREAM_BUFFERS * buffer_bytes(max(sizes)))
    context = options.context or UNPLANNED_CONTEXT
    parts = {
        "what the process holds without the model": options.memory_taken,
        "the head": package.manifest.files[HEAD_FILE].size + HEAD_BUFFERS,
        "two blocks at a time" if weights < sum(sizes) else "the blocks": weights,
        f"KV caches of {context} tokens": cache_bytes(package, len(blocks), kv, context),
        "activations": work_bytes(package, options, context),
    }
    least = sum(parts.values())
    if least > (options.memory_bytes or 0):
        listed = ", ".join(f"{_mib(size)} for {name}" for name, size in parts.items())
        raise EngineError(
            f"the memory limit of {_mib(options.memory_bytes or 0)} is too small, "
            f"at least {_mib(least)} are needed: {listed}",
            hint="allow more memory, or a shorter --context, or --kv int8, or convert with fewer bits",
        )
    head = parts["the head"]
    reserve = cache_bytes(package, len(blocks), kv, context) + parts["activations"]
    return MemoryLimits(left - head, reserve, head, HEAD_BUFFERS)


def cache_bytes(package: Package, blocks: int, kv: KVType, context: int) -> int:
    """KV pages of one sequence of `context` tokens, and one page of room."""
    spec = package.spec
    element = {"float32": 4, "float16": 2, "int8": 1}[kv]
    value_stride = -(-spec.head_dim // 16) * 16
    tile = PAGE_POSITIONS * (element * (spec.head_dim + value_stride) + (8 if kv == "int8" else 0))
    return (-(-context // PAGE_POSITIONS) + 1) * tile * blocks * spec.num_kv_heads


def work_bytes(package: Package, options: EngineOptions, context: int) -> int:
    """What the largest pass needs beside weights and caches, a little rounded up."""
    spec = package.spec
    rows = context if spec.prefix_tokens is not None else min(SLICE_ROWS, context)
    rows_in_slice = min(SLICE_ROWS, rows)
    up_size = spec.intermediate_size * (2 if spec.mlp == "gated_silu" else 1)
    qkv_size = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    widest = max(spec.hidden_size, spec.intermediate_size, spec.num_heads * spec.head_dim)
    queries = spec.num_heads * spec.head_dim if rows > SLICE_ROWS else 0
    projected = max(qkv_size, up_size)
    floats = rows * (queries + 2 * spec.head_dim) + rows_in_slice * (spec.hidden_size + projected + widest)
    return 4 * floats + SCRATCH_BYTES * (options.threads or os.cpu_count() or 1)


def buffer_bytes(size: int) -> int:
    """A buffer that a block of `size` bytes is read into, in whole huge pages."""
    return -(-size // HUGE_PAGE) * HUGE_PAGE


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"
