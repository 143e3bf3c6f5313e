"""A run of blocks as MNN graphs, with the KV caches of its sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_forward, check_open, check_state
from pocketglm.engine.contract import Batch, Float32, Int32, KVState, Segment
from pocketglm.engine.mnn.cache import SequenceCache
from pocketglm.engine.mnn.mask import attention_mask
from pocketglm.engine.mnn.runtime import Graph, to_var, view
from pocketglm.engine.reference.attention import Visibility
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.errors import EngineError

ROWS_AT_ONCE = 128
"""Rows of a long segment computed at once. A prompt of 512 tokens through blocks of ChatGLM-6B takes as
long in pieces of 64 or 128, 9 % longer in pieces of 256 and 26 % longer in one; and every graph keeps
buffers of its own for its activations, 40 MB a block at 128 rows and 150 MB at 512."""


class MnnStage:
    """See `contract.Stage`. Segments of a batch are computed one after the other."""

    def __init__(self, spec: ModelSpec, blocks: range, graphs: Sequence[Graph]) -> None:
        self.blocks = blocks
        self._spec = spec
        self._graphs = list(graphs)
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
            output = self._run(hidden, batch)
        except BaseException as error:  # an interrupt too: rows of half a pass must not stay
            for segment in batch.segments:
                self._caches[segment.sequence].truncate(segment.start)
            if isinstance(error, MemoryError):
                raise EngineError("out of memory in the forward pass; caches are unchanged") from error
            raise
        for segment in batch.segments:
            self._caches[segment.sequence].commit(segment.start + segment.count)
        return output

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
        self._graphs.clear()
        self._caches.clear()

    def _run(self, hidden: Float32, batch: Batch) -> Float32:
        output = np.empty_like(hidden)
        begin = 0
        for segment in batch.segments:
            for piece in pieces(segment):
                rows = slice(begin, begin + piece.count)
                output[rows] = self._run_piece(hidden[rows], piece)
                begin += piece.count
        return output

    def _run_piece(self, hidden: Float32, piece: Segment) -> Float32:
        """Rows [rows, hidden] through all blocks; their keys and values are written, not committed."""
        cache = self._caches[piece.sequence]
        cache.reserve(piece.start + piece.count)
        rotation = to_var(self._rotation(piece.positions))
        masks: dict[int | None, Any] = {}  # by window: all blocks of one window share a mask
        current = to_var(hidden[:, None, :])
        for index, graph in enumerate(self._graphs):
            window = self._spec.window_of(self.blocks[index])
            if window not in masks:
                visibility = Visibility(piece.start, piece.prefix, window)
                masks[window] = to_var(attention_mask(visibility, piece.count, cache.capacity))
            current, present = graph(current, masks[window], rotation, cache.variable(index))
            cache.write(index, piece.start, view(present))
        return view(current)[:, 0].copy()

    def _rotation(self, positions: Int32) -> Float32:
        """Cosines and sines [2, axes, rows, pairs] of positions [axes, rows]."""
        turned = rotate_at(self._spec.rotary, positions)  # [rows, 1, axes, pairs] each
        return np.stack([turned.cosine[:, 0], turned.sine[:, 0]]).transpose(0, 2, 1, 3)

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
        if not self._graphs:
            raise EngineError("the stage was released", hint="load the blocks again")


def pieces(segment: Segment) -> Iterator[Segment]:
    """A segment in consecutive pieces; rows that see a whole prefix stay together."""
    begin = 0
    while begin < segment.count:
        start = segment.start + begin
        size = max(ROWS_AT_ONCE, segment.prefix - start)
        positions = segment.positions[:, begin : begin + size]
        yield Segment(segment.sequence, start, positions, segment.prefix)
        begin += size
