"""A run of blocks of the reference engine, with the KV caches of its sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_forward
from pocketglm.engine.contract import Batch, Float32
from pocketglm.engine.reference.attention import Visibility, attention
from pocketglm.engine.reference.block import Attend, block_forward
from pocketglm.engine.reference.cache import SequenceCache
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.engine.reference.weights import WeightSource
from pocketglm.engine.sequences import SequenceStage
from pocketglm.errors import EngineError

ThreadLimit = Callable[[int], AbstractContextManager[object]]
"""limit_threads(rows) -> a context for a forward pass of that many rows."""


class ReferenceStage(SequenceStage[SequenceCache]):
    """See `contract.Stage`."""

    def __init__(
        self, spec: ModelSpec, blocks: range, weights: Sequence[WeightSource], limit_threads: ThreadLimit
    ) -> None:
        super().__init__(spec, blocks, list(weights), lambda: SequenceCache(spec, len(blocks)))
        self._limit_threads = limit_threads

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        self._check_loaded()
        check_forward(self._spec, hidden, batch, self._lengths())
        try:
            with self._limit_threads(len(hidden)):
                return self._run(hidden, batch)
        except MemoryError as error:
            raise EngineError("out of memory in the forward pass; caches are unchanged") from error

    def _run(self, hidden: Float32, batch: Batch) -> Float32:
        for segment in batch.segments:
            self._caches[segment.sequence].reserve(segment.count)
        positions = batch.positions
        rotation = rotate_at(self._spec.rotary, positions)
        for index, source in enumerate(self._parts):
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
