"""A limit on the process's memory, divided up before anything is loaded.

Enters: the model's sizes, the limit, what the process holds already. Leaves: how much of it the engine
may not use, and how many tokens a session may have. docs/guides/memory.md says what is counted.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pocketglm.architecture.spec import ModelSpec
from pocketglm.plan.kv_cache import KVType, kv_bytes_per_token
from pocketglm.plan.python_memory import CACHE_SHARE, LEAST_CONTEXT, python_bytes


@dataclass(frozen=True)
class MemoryBudget:
    """`context` is the most tokens of a session, `taken` what the engine must leave of the limit."""

    context: int
    taken: int


def plan_budget(
    spec: ModelSpec,
    kv: KVType,
    memory: int,
    context: int | None,
    logits_rows: int,
    uses_gpu: bool = False,
) -> MemoryBudget:
    """Divide `memory` bytes. `logits_rows` are the rows of logits made at once."""
    if context is None:
        fits = memory // CACHE_SHARE // kv_bytes_per_token(spec, kv)
        context = max(LEAST_CONTEXT, fits)
    limited = context_limit(spec, context)
    python = python_bytes(spec, limited, logits_rows, uses_gpu)
    return MemoryBudget(limited, resident_bytes() + python)


def context_limit(spec: ModelSpec, context: int | None) -> int:
    """The model's context, or less where less is asked for."""
    return spec.max_context if context is None else min(context, spec.max_context)


def resident_bytes() -> int:
    """Memory of this process that is in RAM now, mapped files included."""
    return status_bytes("VmRSS")


def anonymous_bytes() -> int:
    """The part of it that belongs to no file and cannot be dropped: 0 where the system does not say."""
    return status_bytes("RssAnon")


def give_back_memory() -> None:
    """Let the system have what the C library keeps of freed memory, where it can (glibc): what a tokenizer
    needed while it was read lies in pieces that caches and buffers would not fit into."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def status_bytes(name: str) -> int:
    """A field of Linux's /proc/self/status; elsewhere what psutil knows, for VmRSS only."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        return 0
    if name != "VmRSS" or sys.platform == "linux":
        return 0
    import psutil

    return int(psutil.Process().memory_info().rss)
