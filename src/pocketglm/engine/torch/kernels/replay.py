"""Passes that decode one token of each sequence, recorded once and then replayed.

Enters: such passes. Leaves: hidden states. A GPU computes a block faster than Python starts its kernels;
a recorded pass (a CUDA graph) is started as a whole. Between two passes of as many rows only the contents
of its buffers differ: hidden states, angles, lengths and the addresses of pages.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketglm.engine.contract import Batch, Float32
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.kernels.attention import splits, tile_rows
from pocketglm.engine.torch.kernels.launch import next_power_of_two
from pocketglm.engine.torch.kernels.paged_pass import PagedPass, segment_table
from pocketglm.engine.torch.kernels.rotary import SEGMENT_FIELDS
from pocketglm.engine.torch.operations import Pass, Record, Replay
from pocketglm.engine.torch.plain_pass import rotation_of

MOST_ROWS = 16
"""Rows up to which passes are replayed; in larger ones starting the kernels matters less."""

LEAST_PAGES = 8
"""Pages of each sequence that a first recording has room for: 512 positions. Then it is doubled."""

Compute = Callable[[Tensor, Pass], Tensor]
"""Hidden states through the stage's blocks."""


def record_graph(compute: Callable[[], Tensor], device: torch.device) -> Replay:
    """A CUDA graph. A first run, on a stream of its own, compiles the kernels and fills the allocator."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        compute()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Only this thread is held to what a graph may contain: another stage may be at work in another
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = compute()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


@dataclass(frozen=True)
class Buffers:
    """What a recorded pass reads: hidden states [rows, hidden], and rotation and segments of a `PagedPass`
    with room for `pages` of each sequence."""

    layout: CacheLayout
    hidden: Tensor
    rotation: Tensor
    segments: Tensor
    pages: int

    @classmethod
    def empty(cls, layout: CacheLayout, rows: int, pages: int) -> Buffers:
        spec, device = layout.spec, layout.device
        hidden = torch.empty(rows, spec.hidden_size, dtype=torch.float32, device=device)
        rotation = torch.empty(2, rows, spec.rotary.dimensions // 2, dtype=torch.float32, device=device)
        segments = torch.empty(rows, SEGMENT_FIELDS + pages, dtype=torch.int64, device=device)
        return cls(layout, hidden, rotation, segments, pages)

    def fill(self, hidden: Float32, batch: Batch, caches: Mapping[int, SequenceCache]) -> None:
        """Put in what a pass computes with."""
        self.hidden.copy_(torch.from_numpy(np.array(hidden)))
        self.rotation.copy_(torch.from_numpy(rotation_of(self.layout.spec, batch)))
        self.segments.copy_(torch.from_numpy(segment_table(batch, caches, self.pages)))

    def decode_pass(self) -> PagedPass:
        """The pass over these buffers: each row is a segment and a tile of its own."""
        rows = self.hidden.shape[0]
        of_rows = torch.arange(rows, dtype=torch.int32, device=self.layout.device)
        tiles = torch.stack([of_rows, torch.zeros_like(of_rows)], dim=1)
        parts = splits(self.layout, rows, self.pages)
        at_once = tile_rows(self.layout, 1)
        return PagedPass(self.layout, self.rotation, self.segments, of_rows, tiles, at_once, parts)


class Replayer:
    """The recordings of one stage, by rows."""

    def __init__(self, layout: CacheLayout, compute: Compute, record: Record) -> None:
        self._layout = layout
        self._compute = compute
        self._record: Record | None = record
        self._recordings: dict[int, tuple[Buffers, Replay]] = {}

    def run(self, hidden: Float32, batch: Batch, caches: Mapping[int, SequenceCache]) -> Tensor | None:
        """The hidden states after the stage, or None for a pass that is not replayed.

        A recording that fails is the last that is tried: a warning says so, and passes run as others do.
        """
        rows = batch.rows
        if self._record is None or rows > MOST_ROWS or rows > len(batch.segments):
            return None
        pages = max(len(caches[segment.sequence].pages) for segment in batch.segments)
        if rows not in self._recordings or self._recordings[rows][0].pages < pages:
            self._recordings.pop(rows, None)  # its memory may serve again
            buffers = Buffers.empty(self._layout, rows, max(LEAST_PAGES, next_power_of_two(pages)))
            buffers.fill(hidden, batch, caches)
            try:
                # It may compute this pass, which writes the keys and values that the pass itself will write
                self._recordings[rows] = buffers, self._new(self._record, buffers)
            except Exception as error:  # whatever CUDA or Triton refuse, the pass can be computed without
                self._record = None
                self._recordings.clear()
                warnings.warn(f"decoding without CUDA graphs: recording failed ({error})", stacklevel=2)
                return None
        buffers, replay = self._recordings[rows]
        buffers.fill(hidden, batch, caches)
        return replay()

    def clear(self) -> None:
        """Free the recordings."""
        self._recordings.clear()

    def _new(self, record: Record, buffers: Buffers) -> Replay:
        decode = buffers.decode_pass()
        return record(lambda: self._compute(buffers.hidden, decode), self._layout.device)
