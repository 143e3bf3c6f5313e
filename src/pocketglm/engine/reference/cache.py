"""The KV cache of one sequence in one stage.

Enters: keys and values of new rows, block by block. Leaves: all keys and values of a block. New rows
count only once the whole forward pass is committed, so a failed pass leaves the cache as it was.
"""

from __future__ import annotations

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Float32, KVState

FIRST_CAPACITY = 64
"""Positions reserved at first; doubled as needed, so that appending costs constant time on average."""


class SequenceCache:
    """Keys and values, float32 [kv_heads, capacity, head_dim] for each block."""

    def __init__(self, spec: ModelSpec, blocks: int) -> None:
        self.length = 0
        self._shape = (spec.num_kv_heads, 0, spec.head_dim)
        self._keys = [np.empty(self._shape, dtype=np.float32) for _ in range(blocks)]
        self._values = [np.empty(self._shape, dtype=np.float32) for _ in range(blocks)]

    def reserve(self, count: int) -> None:
        """Make room for `count` more positions. Raises `MemoryError`; the content stays."""
        needed = self.length + count
        for arrays in (self._keys, self._values):
            for block, array in enumerate(arrays):
                if array.shape[1] < needed:
                    arrays[block] = self._grown(array, needed)

    def write(self, block: int, keys: Float32, values: Float32) -> tuple[Float32, Float32]:
        """Put rows [rows, kv_heads, head_dim] after the committed ones; room must be reserved.

        Returns views of all keys and values of the block, [kv_heads, length + rows, head_dim].
        """
        end = self.length + keys.shape[0]
        all_keys, all_values = self._keys[block][:, :end], self._values[block][:, :end]
        all_keys[:, self.length :] = keys.transpose(1, 0, 2)
        all_values[:, self.length :] = values.transpose(1, 0, 2)
        return all_keys, all_values

    def commit(self, count: int) -> None:
        """Count the rows in that every block has written."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget positions from `length` on; their memory is kept for what comes next."""
        self.length = length

    def save(self, length: int | None = None) -> KVState:
        """A copy of the first `length` positions (all by default)."""
        end = self.length if length is None else length
        keys, values = (
            np.stack([array[:, :end].transpose(1, 0, 2) for array in arrays])
            for arrays in (self._keys, self._values)
        )
        return KVState(keys, values)

    def restore(self, state: KVState) -> None:
        """Append saved positions to this empty cache. Raises `MemoryError`."""
        self.reserve(state.length)
        for block in range(len(self._keys)):
            self.write(block, state.keys[block], state.values[block])
        self.commit(state.length)

    def copy_from(self, source: SequenceCache, length: int) -> None:
        """Append the first `length` positions of `source` to this empty cache. Raises `MemoryError`."""
        self.reserve(length)
        for mine, theirs in ((self._keys, source._keys), (self._values, source._values)):
            for target, array in zip(mine, theirs, strict=True):
                target[:, :length] = array[:, :length]
        self.commit(length)

    def _grown(self, array: Float32, needed: int) -> Float32:
        capacity = max(FIRST_CAPACITY, array.shape[1])
        while capacity < needed:
            capacity *= 2
        kv_heads, _, head_dim = self._shape
        larger = np.empty((kv_heads, capacity, head_dim), dtype=np.float32)
        larger[:, : self.length] = array[:, : self.length]
        return larger
