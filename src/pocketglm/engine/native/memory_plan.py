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
    """Of a stage or the head, in bytes; a `limit` of 0 is none. `reserve` of it is not for weights."""

    limit: int = 0
    reserve: int = 0


def plan_memory(package: Package, blocks: range, kv: KVType, options: EngineOptions) -> MemoryLimits:
    """Raises `EngineError` where the limit is too small, with what would do."""
    left = options.memory_left
    if left is None:
        return MemoryLimits()
    weights, context = weights_bytes(package, blocks, options), options.context or UNPLANNED_CONTEXT
    parts = {
        "what the process holds otherwise": options.memory_taken,
        "the head": head_bytes(package) if options.head_here else 0,
        _weights_name(package, blocks, options): weights,
        f"KV caches of {context} tokens": cache_bytes(package, len(blocks), kv, context),
        "activations": work_bytes(package, options, context),
    }
    least = sum(parts.values())
    if least > (options.memory_bytes or 0):
        listed = ", ".join(f"{_mib(size)} for {name}" for name, size in parts.items() if size)
        raise EngineError(
            f"the memory limit of {_mib(options.memory_bytes or 0)} is too small, "
            f"at least {_mib(least)} are needed: {listed}",
            hint="allow more memory, or a shorter --context, or --kv int8, or convert with fewer bits",
        )
    reserve = cache_bytes(package, len(blocks), kv, context) + parts["activations"]
    return MemoryLimits(left - parts["the head"], reserve)


def plan_head(package: Package, options: EngineOptions) -> MemoryLimits:
    """Raises `EngineError` where the limit is too small for the head alone."""
    left, need = options.memory_left, head_bytes(package)
    if left is None:
        return MemoryLimits()
    if left < need:
        raise EngineError(
            f"the memory limit leaves {_mib(max(0, left))} for the head, which takes {_mib(need)}",
            hint="allow more memory, or convert with fewer bits for the head (--head-bits)",
        )
    return MemoryLimits(need, HEAD_BUFFERS)


def weights_bytes(package: Package, blocks: range, options: EngineOptions) -> int:
    """The least that the weights of `blocks` take: all of them, or of those that are read from disk two
    buffers."""
    sizes = _sizes(package, blocks)
    if options.streamed_blocks is None:
        return min(sum(sizes.values()), STREAM_BUFFERS * buffer_bytes(max(sizes.values())))
    read = [size for index, size in sizes.items() if index in options.streamed_blocks]
    buffers = STREAM_BUFFERS * buffer_bytes(max(read)) if read else 0
    return sum(sizes.values()) - sum(read) + buffers


def head_bytes(package: Package) -> int:
    """The head with its activations."""
    return package.manifest.files[HEAD_FILE].size + HEAD_BUFFERS


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


def _sizes(package: Package, blocks: range) -> dict[int, int]:
    return {index: package.manifest.files[block_file(index)].size for index in blocks}


def _weights_name(package: Package, blocks: range, options: EngineOptions) -> str:
    sizes = _sizes(package, blocks)
    if options.streamed_blocks is None:
        whole = weights_bytes(package, blocks, options) == sum(sizes.values())
        return "the blocks" if whole else "two blocks at a time"
    read = len(options.streamed_blocks & sizes.keys())
    return f"{len(sizes) - read} blocks in memory and two at a time of {read}" if read else "the blocks"


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"
