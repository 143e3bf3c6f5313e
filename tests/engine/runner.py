"""Runs token ids through an engine's stages and head, as a session does: for tests of engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from pocketglm.engine.contract import Batch, Engine, EngineOptions, Float32, Segment, embed
from pocketglm.engine.positions import PositionTracker
from pocketglm.package.reader import Package


class Runner:
    """Some stages that together hold all blocks, a head, and any number of sequences."""

    def __init__(
        self,
        engine: Engine,
        package: Package,
        *,
        splits: Sequence[int] = (),
        options: EngineOptions | None = None,
    ) -> None:
        options = options or EngineOptions()
        self.package = package
        bounds = [0, *splits, package.spec.num_blocks]
        self.stages = [
            engine.load_blocks(package, range(low, high), options) for low, high in pairwise(bounds)
        ]
        self.head = engine.load_head(package, options)
        self.trackers: dict[int, PositionTracker] = {}

    def open(self, sequence: int) -> None:
        for stage in self.stages:
            stage.open(sequence)
        self.trackers[sequence] = PositionTracker(self.package.spec)

    def feed(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, Float32]:
        """Append tokens to sequences in one pass. Returns the logits [count, vocab] of each."""
        batch = self.batch(tokens)
        ids = [token for sequence in tokens.values() for token in sequence]
        hidden = embed(self.package, ids)
        for stage in self.stages:
            hidden = stage.forward(hidden, batch)
        logits = self.head.logits(hidden)
        ends = np.cumsum([len(sequence) for sequence in tokens.values()])
        return dict(zip(tokens, np.split(logits, ends[:-1]), strict=True))

    def batch(self, tokens: Mapping[int, Sequence[int]]) -> Batch:
        """The batch of `tokens`, counted in by the trackers."""
        segments = []
        for sequence, ids in tokens.items():
            tracker = self.trackers[sequence]
            start = tracker.length
            segments.append(Segment(sequence, start, *tracker.advance(ids)))
        return Batch(tuple(segments))

    def run(self, ids: Sequence[int], sequence: int = 0, chunks: Sequence[int] = ()) -> Float32:
        """Logits of a whole sequence in a new cache, fed in pieces that end at `chunks`."""
        self.open(sequence)
        bounds = [0, *chunks, len(ids)]
        pieces = [
            self.feed({sequence: ids[low:high]})[sequence] for low, high in pairwise(bounds) if low < high
        ]
        return np.concatenate(pieces)

    def truncate(self, sequence: int, length: int) -> None:
        for stage in self.stages:
            stage.truncate(sequence, length)
        self.trackers[sequence].truncate(length)

    def continue_as(self, source: int, target: int, length: int) -> None:
        """Let the open, empty `target` start as the first `length` positions of `source`."""
        for stage in self.stages:
            stage.copy_prefix(source, target, length)
        self.trackers[target] = self.trackers[source].copy()
        self.trackers[target].truncate(length)

    def release(self) -> None:
        for stage in self.stages:
            stage.release()
        self.head.release()
