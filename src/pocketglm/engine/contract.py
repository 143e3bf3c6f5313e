"""The engine contract: what every engine offers, and nothing more.

Enters: a package and the blocks to load. Leaves: a `Stage` that turns hidden states into hidden
states, and a `Head` that turns the last ones into logits. A stage owns the KV cache of its blocks.
`tests/engine/contract_suite.py` is the executable form of this file; every engine passes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pocketglm.package.reader import Package
from pocketglm.plan.kv_cache import KVType as KVType

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of one sequence inside a batch.

    `positions` is int32 [axes, count]: what the rotary embedding uses (one axis, two for
    ChatGLM-6B). `start` is how many positions the sequence's cache must hold already. Cache columns
    below `prefix` are visible to every row of the sequence; the others causally. Rows of the prefix see
    its end, so a segment that begins inside the prefix begins at 0 and holds all of it.
    """

    sequence: int
    start: int
    positions: Int32
    prefix: int = 0

    @property
    def count(self) -> int:
        return int(self.positions.shape[1])


@dataclass(frozen=True)
class Batch:
    """The rows of one forward pass, segment after segment. A sequence occurs at most once."""

    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        return sum(segment.count for segment in self.segments)

    @cached_property
    def positions(self) -> Int32:
        """Of all rows, int32 [axes, rows]."""
        every = [segment.positions for segment in self.segments]
        return every[0] if len(every) == 1 else np.concatenate(every, axis=1)


@dataclass(frozen=True)
class KVState:
    """The KV cache of one sequence in one stage, as saved and restored.

    `keys` and `values` are float32 or float16 [blocks, length, kv_heads, head_dim]; keys are rotated.
    """

    keys: NDArray[np.floating]
    values: NDArray[np.floating]

    @property
    def length(self) -> int:
        return int(self.keys.shape[1])


class Stage(Protocol):
    """A run of consecutive blocks and their KV caches. Not safe for concurrent calls."""

    blocks: range

    def open(self, sequence: int) -> None:
        """Start an empty cache for a new sequence id. Raises `EngineError` if it is open already."""

    def close(self, sequence: int) -> None:
        """Drop a sequence's cache. Unknown ids are ignored."""

    def length(self, sequence: int) -> int:
        """Positions held for the sequence."""

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        """[rows, hidden] -> [rows, hidden]; appends every segment's keys and values to its cache.

        Raises `EngineError`, leaving every cache as it was, where a segment's start is not its
        sequence's length, a shape is wrong, or the cache cannot grow.
        """

    def truncate(self, sequence: int, length: int) -> None:
        """Forget positions from `length` on. Raises `EngineError` where length exceeds the cache."""

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Append the first `length` positions of `source` to `target`, which must be open and empty."""

    def save(self, sequence: int) -> KVState:
        """The sequence's cache, copied."""

    def restore(self, sequence: int, state: KVState) -> None:
        """Fill an open, empty sequence from a saved cache."""

    def release(self) -> None:
        """Free weights and caches. Idempotent."""


class Head(Protocol):
    """Final norm and output projection."""

    def logits(self, hidden: Float32) -> Float32:
        """[rows, hidden] -> [rows, vocab], float32."""

    def release(self) -> None: ...


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, for the planner and for clear refusals.

    `kv_types` are what a user may choose for the caches, none where there is no choice. In passes of
    up to `exact_rows` consecutive rows every row gets the very bits that it gets alone. With
    `holds_memory` the engine keeps the whole process within `EngineOptions.memory_bytes`; others take
    the number as a hint. With `streams` it can read blocks from disk at every pass.
    """

    weight_bits: frozenset[int]  # of 32, 16, 8, 4
    devices: tuple[str, ...]  # "cpu", "cuda", ...
    batched: bool  # decodes several sequences in one pass faster than one after the other
    kv_types: tuple[KVType, ...] = ()
    exact_rows: int = 1
    holds_memory: bool = False
    streams: bool = False


HEAD = "head"
"""The head's key in `EngineOptions.backend`."""


@dataclass(frozen=True)
class EngineOptions:
    """Settings every engine takes. `None` leaves the choice to the engine.

    `backend` matters to engines that run on several: the name of one for everything, or names by block
    index and, for the head, by `HEAD`; whatever is not named is left to the engine. `kv` matters to
    engines that can keep their caches in several types; others keep their own. `memory_bytes` is what
    the process may hold in all, of which `memory_taken` is held by others already or kept back for
    them; the engine plans for KV caches of `context` tokens together (None: as it likes) and, with
    `head_here`, for the head. `gpu_memory_bytes` is what the process may take of a GPU's memory, of which
    `gpu_memory_taken` is held by others already.
    `streamed_blocks` are read from disk at every pass, the others stay in memory (None: as the memory
    needs).
    """

    threads: int | None = None
    memory_bytes: int | None = None
    backend: str | Mapping[int | str, str] | None = None
    kv: KVType | None = None
    memory_taken: int = 0
    context: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_taken: int = 0
    streamed_blocks: frozenset[int] | None = None
    head_here: bool = True

    @property
    def memory_left(self) -> int | None:
        """Bytes for the engine itself, below 1 where nothing is left; None for no limit."""
        return None if self.memory_bytes is None else self.memory_bytes - self.memory_taken

    def backend_of(self, part: int | str) -> str | None:
        """Backend named for a block index or `HEAD`, or None."""
        return self.backend if isinstance(self.backend, str | None) else self.backend.get(part)


class Engine(Protocol):
    """Loads parts of packages. Stateless between loads."""

    name: str

    def capabilities(self) -> Capabilities: ...

    def load_blocks(self, package: Package, blocks: range, options: EngineOptions) -> Stage:
        """Raises `EngineError`, naming the block and the setting, for what it cannot run."""

    def load_head(self, package: Package, options: EngineOptions) -> Head: ...


def embed(package: Package, token_ids: Sequence[int] | Iterable[int]) -> Float32:
    """Embedding rows of `token_ids` [count, hidden], scaled as the model wants."""
    rows = package.embedding_rows(token_ids)
    scale = package.spec.embedding_scale
    return rows if scale == 1.0 else rows * np.float32(scale)
