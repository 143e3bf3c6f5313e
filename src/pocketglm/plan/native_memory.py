"""What the native engine holds in memory, known before anything is loaded.

Enters: a manifest and settings. Leaves: bytes. The sizes follow native/engine: kv_layout.h,
forward_pass.cpp, weight_store.cpp; `engine/native/memory_plan.py` keeps to a limit with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pocketglm.architecture.spec import ModelSpec
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.manifest import Manifest
from pocketglm.plan.kv_cache import KVType
from pocketglm.plan.python_memory import rows_at_once

PAGE_POSITIONS = 64
HUGE_PAGE = 2 << 20
STREAM_BUFFERS = 2
SLICE_ROWS = 256
"""Rows that go through a matrix together."""

HEAD_BUFFERS = 8 << 20
"""Bytes that the head's activations take at most, for a few rows at a time."""

ROW_PADDING = 1 << 10
"""Bytes at most that fill up groups and vectors in a row of quantized inputs. A group of 32 or more has two
floats beside its codes: a quarter."""

SCRATCH_BYTES = 1 << 20
"""Work memory of one thread at most: unpacked panels of weights and some channels of a gated MLP, or the
weights of outliers, or scores of attention."""


def block_sizes(manifest: Manifest, blocks: Iterable[int]) -> dict[int, int]:
    """Bytes of the files of `blocks`, by block."""
    return {index: manifest.files[block_file(index)].size for index in blocks}


def head_file_bytes(manifest: Manifest) -> int:
    """The head's file: final norm and output projection."""
    return manifest.files[HEAD_FILE].size


def head_bytes(manifest: Manifest) -> int:
    """The head with its activations, at most."""
    return head_file_bytes(manifest) + HEAD_BUFFERS


def weights_bytes(manifest: Manifest, blocks: Iterable[int], streamed: Collection[int] | None) -> int:
    """The least that the weights of `blocks` take: all of them, but of those in `streamed` (None: as it
    pleases the engine) two buffers."""
    sizes = block_sizes(manifest, blocks)
    if streamed is None:
        return min(sum(sizes.values()), read_buffers(sizes.values()))
    read = [size for index, size in sizes.items() if index in streamed]
    return sum(sizes.values()) - sum(read) + read_buffers(read)


def read_buffers(sizes: Iterable[int]) -> int:
    """The buffers that blocks of `sizes` bytes are read into in turn; 0 without blocks."""
    largest = max(sizes, default=0)
    return STREAM_BUFFERS * buffer_bytes(largest)


def buffer_bytes(size: int) -> int:
    """A buffer that a block of `size` bytes is read into, in whole huge pages."""
    return -(-size // HUGE_PAGE) * HUGE_PAGE


def page_bytes(spec: ModelSpec, blocks: int, kv: KVType) -> int:
    """A page of `PAGE_POSITIONS` positions of a KV cache of `blocks` blocks."""
    element = {"float32": 4, "float16": 2, "int8": 1}[kv]
    value_stride = -(-spec.head_dim // 16) * 16
    tile = PAGE_POSITIONS * (element * (spec.head_dim + value_stride) + (8 if kv == "int8" else 0))
    return tile * blocks * spec.num_kv_heads


def cache_bytes(spec: ModelSpec, blocks: int, kv: KVType, context: int) -> int:
    """KV pages of one sequence of `context` tokens, and one page of room."""
    return (-(-context // PAGE_POSITIONS) + 1) * page_bytes(spec, blocks, kv)


def all_quantized(manifest: Manifest, blocks: Iterable[int]) -> bool:
    """Whether every matrix of `blocks` is, so that what enters it is quantized, too."""
    tensors = (entry for index in blocks for entry in manifest.weights.get(block_file(index), ()))
    return all(entry.format.quantized for entry in tensors if isinstance(entry, LinearEntry))


def work_bytes(spec: ModelSpec, threads: int, context: int, quantized: bool = False) -> int:
    """What the largest pass needs beside weights and caches, rounded up. `quantized` is `all_quantized`."""
    rows = rows_at_once(spec, context)
    query_size = spec.num_heads * spec.head_dim
    qkv_size = query_size + 2 * spec.num_kv_heads * spec.head_dim
    inputs = max(spec.hidden_size, spec.intermediate_size, query_size)
    queries = query_size if rows > SLICE_ROWS else 0
    prepared = inputs * 5 // 4 + ROW_PADDING if quantized else inputs * 4
    in_slice = min(SLICE_ROWS, rows) * (4 * max(qkv_size, inputs) + prepared)
    return 4 * rows * (queries + 2 * spec.head_dim) + in_slice + SCRATCH_BYTES * threads
