"""How the native engine divides the memory that it is allowed, before it loads anything.

Enters: a package and the options. Leaves: limits for the stage and for the head, or `EngineError` with
the least that works. The formulas are those that plans are made with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pocketglm.engine.contract import EngineOptions, KVType
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package
from pocketglm.plan import native_memory
from pocketglm.plan.native_memory import HEAD_BUFFERS as HEAD_BUFFERS
from pocketglm.plan.native_memory import block_sizes
from pocketglm.plan.native_memory import buffer_bytes as buffer_bytes

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
        "activations": work_bytes(package, blocks, options, context),
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
    return native_memory.weights_bytes(package.manifest, blocks, options.streamed_blocks)


def head_bytes(package: Package) -> int:
    """The head with its activations."""
    return native_memory.head_bytes(package.manifest)


def cache_bytes(package: Package, blocks: int, kv: KVType, context: int) -> int:
    """KV pages of one sequence of `context` tokens, and one page of room."""
    return native_memory.cache_bytes(package.spec, blocks, kv, context)


def work_bytes(package: Package, blocks: range, options: EngineOptions, context: int) -> int:
    """What the largest pass needs beside weights and caches, a little rounded up."""
    quantized = native_memory.all_quantized(package.manifest, blocks)
    return native_memory.work_bytes(package.spec, options.threads or os.cpu_count() or 1, context, quantized)


def _weights_name(package: Package, blocks: range, options: EngineOptions) -> str:
    sizes = block_sizes(package.manifest, blocks)
    if options.streamed_blocks is None:
        whole = weights_bytes(package, blocks, options) == sum(sizes.values())
        return "the blocks" if whole else "two blocks at a time"
    read = len(options.streamed_blocks & sizes.keys())
    return f"{len(sizes) - read} blocks in memory and two at a time of {read}" if read else "the blocks"


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"
