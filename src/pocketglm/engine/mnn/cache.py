"""The KV cache of one sequence in one stage, in memory that MNN reads in place.

Enters: keys and values of new rows, block by block. Leaves: one MNN variable a block, larger than what
it holds; the mask hides the rest. A step copies nothing but its new rows. New rows count only once the
whole forward pass is committed, so a failed pass leaves the cache as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Float32, KVState
from pocketglm.engine.mnn.runtime import to_var, view

FIRST_STEP, STEP = 64, 256
"""Columns that a cache grows by: up to `STEP`, and above. Attention reads the unused columns too, on
every step, which costs more than copying the cache once in 256 steps: so it does not double."""


@dataclass(frozen=True)
class BlockCache:
    """One block's keys and values: an MNN variable [2, kv_heads, capacity, head_dim] and its memory."""

    variable: Any
    memory: Float32

    @classmethod
    def zeros(cls, spec: ModelSpec, capacity: int) -> BlockCache:
        """Zeros, not just any memory: hidden columns are multiplied by 0, which no infinity may meet."""
        variable = to_var(np.zeros((2, spec.num_kv_heads, capacity, spec.head_dim), np.float32))
        return cls(variable, view(variable))


class SequenceCache:
    """Caches of all blocks of a stage."""

    def __init__(self, spec: ModelSpec, blocks: int) -> None:
        self.length = 0
        self.capacity = 0
        self._spec = spec
        self._count = blocks
        self._blocks: list[BlockCache] = []

    def reserve(self, columns: int) -> None:
        """Make room for `columns` in all. Raises `MemoryError`; the content stays."""
        if columns <= self.capacity:
            return
        step = FIRST_STEP if columns <= STEP else STEP
        capacity = -(-columns // step) * step
        larger = [BlockCache.zeros(self._spec, capacity) for _ in range(self._count)]
        for old, new in zip(self._blocks, larger, strict=False):  # there is none at first
            new.memory[:, :, : self.capacity] = old.memory
        self._blocks, self.capacity = larger, capacity

    def variable(self, block: int) -> Any:
        """What the block's graph takes as `past`: `capacity` columns."""
        return self._blocks[block].variable

    def write(self, block: int, start: int, present: Float32) -> None:
        """Put the graph's `present` [2, kv_heads, rows, head_dim] at column `start`; room is there."""
        self._blocks[block].memory[:, :, start : start + present.shape[2]] = present

    def commit(self, length: int) -> None:
        """Count columns in that every block has written."""
        self.length = length

    def truncate(self, length: int) -> None:
        """Forget columns from `length` on, also those that a failed pass wrote."""
        self.length = length
        for block in self._blocks:
            block.memory[:, :, length:] = 0

    def save(self) -> KVState:
        """A copy."""
        empty = np.empty((2, self._spec.num_kv_heads, 0, self._spec.head_dim), np.float32)
        held = [b.memory[:, :, : self.length] for b in self._blocks] or [empty] * self._count
        keys, values = (np.stack([array[i].transpose(1, 0, 2) for array in held]) for i in (0, 1))
        return KVState(keys, values)

    def restore(self, state: KVState) -> None:
        """Fill this empty cache. Raises `MemoryError`."""
        self.reserve(state.length)
        for block in range(self._count if state.length else 0):
            pair = np.stack([state.keys[block], state.values[block]]).astype(np.float32)
            self.write(block, 0, pair.transpose(0, 2, 1, 3))
        self.commit(state.length)

    def copy_from(self, source: SequenceCache, length: int) -> None:
        """Fill this empty cache with the first `length` columns of another. Raises `MemoryError`."""
        self.reserve(length)
        for block in range(self._count if length else 0):
            self.write(block, 0, source._blocks[block].memory[:, :, :length])
        self.commit(length)
