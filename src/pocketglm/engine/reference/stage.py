"""A run of blocks of the reference engine, with the KV caches of its sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_forward, check_open, check_state
from pocketglm.engine.contract import Batch, Float32, KVState
from pocketglm.engine.reference.attention import Visibility, attention
from pocketglm.engine.reference.block import Attend, block_forward
from pocketglm.engine.reference.cache import SequenceCache
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.engine.reference.weights import WeightSource
from pocketglm.errors import EngineError

ThreadLimit = Callable[[int], AbstractContextManager[object]]
"""limit_threads(rows) -> a context for a forward pass of that many rows."""


class ReferenceStage:
    """See `contract.Stage`."""

    def __init__(
        self, spec: ModelSpec, blocks: range, weights: Sequence[WeightSource], limit_threads: ThreadLimit
    ) -> None:
        self.blocks = blocks
        self._spec = spec
        self._weights = list(weights)
        self._limit_threads = limit_threads
        self._caches: dict[int, SequenceCache] = {}

    def open(self, sequence: int) -> None:
        self._check_loaded()
        if sequence in self._caches:
            raise EngineError(f"sequence {sequence} is open already")
        self._caches[sequence] = SequenceCache(self._spec, len(self.blocks))

    def close(self, sequence: int) -> None:
        self._caches.pop(sequence, None)

    def length(self, sequence: int) -> int:
        return self._cache(sequence).length

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        self._check_loaded()
        lengths = {sequence: cache.length for sequence, cache in self._caches.items()}
        check_forward(self._spec, hidden, batch, lengths)
        try:
            with self._limit_threads(len(hidden)):
                return self._run(hidden, batch)
        except MemoryError as error:
            raise EngineError("out of memory in the forward pass; caches are unchanged") from error

    def truncate(self, sequence: int, length: int) -> None:
        cache = self._cache(sequence)
        if not 0 <= length <= cache.length:
            raise EngineError(f"cannot truncate sequence {sequence} of length {cache.length} to {length}")
        cache.truncate(length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        cache = self._cache(source)
        if not 0 <= length <= cache.length:
            raise EngineError(f"cannot copy {length} positions: sequence {source} holds {cache.length}")
        self._fill(target, lambda empty: empty.copy_from(cache, length))

    def save(self, sequence: int) -> KVState:
        return self._cache(sequence).save()

    def restore(self, sequence: int, state: KVState) -> None:
        check_state(self._spec, self.blocks, state)
        self._fill(sequence, lambda empty: empty.restore(state))

    def release(self) -> None:
        self._weights.clear()
        self._caches.clear()

    def _run(self, hidden: Float32, batch: Batch) -> Float32:
        for segment in batch.segments:
            self._caches[segment.sequence].reserve(segment.count)
        positions = np.concatenate([segment.positions for segment in batch.segments], axis=1)
        rotation = rotate_at(self._spec.rotary, positions)
        for index, source in enumerate(self._weights):
            weights = source()
            attend = self._attend(index, batch)
            hidden = block_forward(self._spec, hidden, weights.linear, weights.vector, rotation, attend)
        for segment in batch.segments:
            self._caches[segment.sequence].commit(segment.count)
        return hidden

    def _attend(self, index: int, batch: Batch) -> Attend:
        """Attention of block `index` of this stage: each segment over its own cache."""
        window = self._spec.window_of(self.blocks[index])

        def attend(queries: Float32, keys: Float32, values: Float32) -> Float32:
            output = np.empty((batch.rows, self._spec.q_size), dtype=np.float32)
            begin = 0
            for segment in batch.segments:
                rows = slice(begin, begin + segment.count)
                cached = self._caches[segment.sequence].write(index, keys[rows], values[rows])
                visibility = Visibility(segment.start, segment.prefix, window)
                output[rows] = attention(queries[rows], *cached, visibility)
                begin += segment.count
            return output

        return attend

    def _fill(self, sequence: int, fill: Callable[[SequenceCache], None]) -> None:
        """Fill the cache of an open, empty sequence."""
        cache = self._cache(sequence)
        if cache.length:
            raise EngineError(f"sequence {sequence} holds {cache.length} positions, it must be empty")
        try:
            fill(cache)
        except MemoryError as error:
            raise EngineError(f"out of memory for the cache of sequence {sequence}") from error

    def _cache(self, sequence: int) -> SequenceCache:
        check_open(sequence, self._caches)
        return self._caches[sequence]

    def _check_loaded(self) -> None:
        if not self._weights:
            raise EngineError("the stage was released", hint="load the blocks again")
