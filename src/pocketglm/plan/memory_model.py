"""What a run holds in memory, part by part: expected, and kept back.

Enters: a manifest, a placement with its context and KV type, figures of the process. Leaves: `Need`s. What
is expected is what the process will hold at its peak, with the context full. What is reserved is what the
engine insists on under a limit; it is never less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pocketglm.package.manifest import Manifest
from pocketglm.plan import gpu_memory, native_memory
from pocketglm.plan.kv_cache import KVType
from pocketglm.plan.placement import Placement
from pocketglm.plan.python_memory import python_bytes, rows_at_once

READER_BYTES = 2 << 20
"""What the thread that reads blocks from disk holds beside its buffers, as measured: stack and tables."""

LOGITS_ROWS = 4
"""Rows of logits made at once: a token, and those that prompt lookup guesses."""

GROWTH_BYTES = 5 << 20
"""What Python comes to hold after loading, as measured: modules that are imported late, NumPy's loops."""

HIDDEN_BYTES = 6
"""Bytes that Python holds of each value of [rows, hidden]: rows of the embedding in 2 bytes and in 4. A pass
needs 4 of them, the stage computes in place."""


@dataclass(frozen=True)
class Need:
    """Bytes by part, in words."""

    parts: Mapping[str, int]

    @cached_property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class ProcessFigures:
    """What was measured of the process and the engine, before any weight is used.

    `resident` is what the process holds with tokenizer and engine loaded. `work(kv, context)` is what a
    stage takes for activations and scratch, `head_work` the head. `threads` compute.
    """

    resident: int
    threads: int
    work: Callable[[KVType, int], int]
    head_work: int


def expected_ram(manifest: Manifest, placement: Placement, context: int, process: ProcessFigures) -> Need:
    """Resident memory of the process at its peak, mapped files included."""
    spec = manifest.spec
    kept = [index for index, place in enumerate(placement.blocks) if place == "ram"]
    read = [index for index, place in enumerate(placement.blocks) if place == "disk"]
    here = len(kept) + len(read)
    pages = -(-context // native_memory.PAGE_POSITIONS)
    hidden = HIDDEN_BYTES * spec.hidden_size * rows_at_once(spec, context)
    logits = 4 * spec.vocab_size * LOGITS_ROWS
    head = native_memory.head_file_bytes(manifest) + process.head_work
    parts = {
        "Python, libraries, tokenizer": process.resident + GROWTH_BYTES,
        "hidden states and logits": hidden + logits,
        "head": head if placement.head == "ram" else 0,
        "blocks in RAM": sum(native_memory.block_sizes(manifest, kept).values()),
        "read buffers": _read_buffers(manifest, read),
        "KV cache": pages * native_memory.page_bytes(spec, here, placement.kv),
        "activations": process.work(placement.kv, context) if here else 0,
    }
    return Need(parts)


def reserved_ram(manifest: Manifest, placement: Placement, context: int, process: ProcessFigures) -> Need:
    """What a limit must allow before the engine loads: every part at its most."""
    spec, kv = manifest.spec, placement.kv
    here = [index for index, place in enumerate(placement.blocks) if place != "gpu"]
    read = {index for index in here if placement.blocks[index] == "disk"}
    work = native_memory.work_bytes(
        spec, process.threads, context, native_memory.all_quantized(manifest, here)
    )
    work = max(work, process.work(kv, context))
    parts = {
        "Python, libraries, tokenizer": process.resident
        + python_bytes(spec, context, LOGITS_ROWS, placement.uses_gpu),
        "head": native_memory.head_bytes(manifest) if placement.head == "ram" else 0,
        "blocks": native_memory.weights_bytes(manifest, here, read) if here else 0,
        "KV cache": native_memory.cache_bytes(spec, len(here), kv, context) if here else 0,
        "activations": work if here else 0,
    }
    return Need(parts)


def expected_gpu(manifest: Manifest, placement: Placement, context: int) -> Need:
    """What the torch engine takes of a GPU's memory, beside what the driver keeps."""
    there = [index for index, place in enumerate(placement.blocks) if place == "gpu"]
    on_head = placement.head == "gpu"
    parts = {
        "blocks": sum(gpu_memory.block_bytes(manifest, index) for index in there),
        "head": gpu_memory.head_bytes(manifest) if on_head else 0,
        "KV cache": gpu_memory.cache_bytes(manifest.spec, len(there), context, placement.kv) if there else 0,
        "activations": gpu_memory.work_bytes(manifest.spec, context) if there or on_head else 0,
    }
    return Need(parts)


def _read_buffers(manifest: Manifest, read: list[int]) -> int:
    if not read:
        return 0
    return native_memory.read_buffers(native_memory.block_sizes(manifest, read).values()) + READER_BYTES
