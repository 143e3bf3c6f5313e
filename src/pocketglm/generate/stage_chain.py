"""Stages that follow one another, as one stage over all blocks of a model.

Enters: stages of any engines, in the order of their blocks. Leaves: `contract.Stage`; hidden states cross
from a stage to the next once a pass. A call that fails in one stage is undone in those before it.
"""

from __future__ import annotations

import numpy as np

from pocketglm.engine.contract import Batch, Float32, KVState, Stage


class StageChain:
    """See `contract.Stage`. `stages` is the list that it was given: it may change between calls."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.sequences: set[int] = set()

    @property
    def blocks(self) -> range:
        return range(self.stages[0].blocks.start, self.stages[-1].blocks.stop)

    def open(self, sequence: int) -> None:
        opened: list[Stage] = []
        try:
            for stage in self.stages:
                stage.open(sequence)
                opened.append(stage)
        except BaseException:
            for stage in opened:
                stage.close(sequence)
            raise
        self.sequences.add(sequence)

    def close(self, sequence: int) -> None:
        self.sequences.discard(sequence)
        for stage in self.stages:
            stage.close(sequence)

    def length(self, sequence: int) -> int:
        """Positions that every stage holds."""
        return min(stage.length(sequence) for stage in self.stages)

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        """As `Stage.forward`, but `hidden` may be overwritten where there is one stage: where there are more,
        a call that fails is made again."""
        done: list[Stage] = []
        try:
            for stage in self.stages:
                hidden = _run(stage, hidden, batch, in_place=bool(done) or len(self.stages) == 1)
                done.append(stage)
        except BaseException:  # an interrupt too
            for segment in batch.segments:
                _cut(done, segment.sequence, segment.start)
            raise
        return hidden

    def truncate(self, sequence: int, length: int) -> None:
        for stage in self.stages:
            stage.truncate(sequence, length)

    def roll_back(self, sequence: int, length: int) -> None:
        """Forget what stages have beyond `length`, where some of them have it and others not. Released ones
        have nothing."""
        for stage in self.stages if sequence in self.sequences else ():
            if stage.length(sequence) > length:
                stage.truncate(sequence, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        done: list[Stage] = []
        try:
            for stage in self.stages:
                stage.copy_prefix(source, target, length)
                done.append(stage)
        except BaseException:
            _cut(done, target, 0)
            raise

    def save(self, sequence: int) -> KVState:
        return joined([stage.save(sequence) for stage in self.stages])

    def restore(self, sequence: int, state: KVState) -> None:
        first, done = self.blocks.start, list[Stage]()
        try:
            for stage in self.stages:
                part = slice(stage.blocks.start - first, stage.blocks.stop - first)
                stage.restore(sequence, KVState(state.keys[part], state.values[part]))
                done.append(stage)
        except BaseException:
            _cut(done, sequence, 0)
            raise

    def release(self) -> None:
        self.sequences.clear()
        for stage in self.stages:
            stage.release()


def _run(stage: Stage, hidden: Float32, batch: Batch, in_place: bool) -> Float32:
    forward = getattr(stage, "forward_in_place", None) if in_place else None
    result: Float32 = (forward or stage.forward)(hidden, batch)
    return result


def _cut(stages: list[Stage], sequence: int, length: int) -> None:
    """Take back what stages have done in a call that another one failed."""
    for stage in stages:
        stage.truncate(sequence, length)


def joined(states: list[KVState]) -> KVState:
    """The cache of all blocks from those of all stages."""
    if len(states) == 1:
        return states[0]
    keys, values = (np.concatenate([getattr(state, side) for state in states]) for side in ("keys", "values"))
    return KVState(keys, values)
