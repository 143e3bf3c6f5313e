"""A run of blocks as MNN graphs, with the KV caches of its sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_forward
from pocketglm.engine.contract import Batch, Float32, Int32, Segment
from pocketglm.engine.mnn.cache import SequenceCache
from pocketglm.engine.mnn.mask import attention_mask
from pocketglm.engine.mnn.runtime import Graph, to_var, view
from pocketglm.engine.reference.attention import Visibility
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.engine.sequences import SequenceStage
from pocketglm.errors import EngineError

ROWS_AT_ONCE = 128
"""Rows of a long segment computed at once. A prompt of 512 tokens through blocks of ChatGLM-6B takes as
long in pieces of 64 or 128, 9 % longer in pieces of 256 and 26 % longer in one; and every graph keeps
buffers of its own for its activations, 40 MB a block at 128 rows and 150 MB at 512."""


class MnnStage(SequenceStage[SequenceCache]):
    """See `contract.Stage`. Segments of a batch are computed one after the other."""

    def __init__(self, spec: ModelSpec, blocks: range, graphs: Sequence[Graph]) -> None:
        super().__init__(spec, blocks, list(graphs), lambda: SequenceCache(spec, len(blocks)))

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        self._check_loaded()
        check_forward(self._spec, hidden, batch, self._lengths())
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
        for index, graph in enumerate(self._parts):
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


def pieces(segment: Segment) -> Iterator[Segment]:
    """A segment in consecutive pieces; rows that see a whole prefix stay together."""
    begin = 0
    while begin < segment.count:
        start = segment.start + begin
        size = max(ROWS_AT_ONCE, segment.prefix - start)
        positions = segment.positions[:, begin : begin + size]
        yield Segment(segment.sequence, start, positions, segment.prefix)
        begin += size
