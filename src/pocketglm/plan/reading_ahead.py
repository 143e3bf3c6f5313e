"""How long a pass takes whose blocks are partly read from disk, ahead of their turn, into two buffers.

Enters: seconds of computing and of reading for each block, and what both lose while both are at work.
Leaves: seconds of one of many passes, each right after the other. It follows native/engine/weight_store.cpp:
one read at a time, without a stop between passes, but only into a buffer whose block is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pocketglm.plan.native_memory import STREAM_BUFFERS

PASSES = 4
"""From the second one on, each begins with as much read ahead as the one before."""


@dataclass(frozen=True)
class Step:
    """Work of a pass: `compute_s`, once what takes `read_s` to be read is there; 0 is not read."""

    compute_s: float
    read_s: float = 0.0


def pass_seconds(steps: Sequence[Step], crowding: float) -> float:
    """The mean of the last of `PASSES` passes. While it reads and computes at the same time, both go at
    1 - `crowding` of their speed."""
    reader = _Reader([step.read_s for step in steps if step.read_s], 1 - crowding)
    ends = []
    for _ in range(PASSES):
        for step in steps:
            if step.read_s:
                reader.wait()
            reader.compute(step.compute_s)
            if step.read_s:
                reader.free()
        ends.append(reader.now)
    return (ends[-1] - ends[0]) / (PASSES - 1)


class _Reader:
    """Reads blocks in turn into free buffers, for as long as it is given time."""

    def __init__(self, read_s: Sequence[float], speed: float) -> None:
        self.now = 0.0
        self._read_s = read_s
        self._speed = speed
        self._number = 0
        self._left = read_s[0] if read_s else 0.0
        self._buffers = STREAM_BUFFERS
        self._ready = 0

    def wait(self) -> None:
        """Until a block is there; it is taken."""
        if not self._ready:
            self.now += self._left
            self._finish()
        self._ready -= 1

    def compute(self, seconds: float) -> None:
        """Reading goes on beside it while a buffer is free."""
        while self._reads() and self._left < seconds:
            self.now += self._left / self._speed
            seconds -= self._left
            self._finish()
        if self._reads():
            self._left -= seconds
            seconds /= self._speed
        self.now += seconds

    def free(self) -> None:
        """The block that was taken is computed."""
        self._buffers += 1

    def _reads(self) -> bool:
        return bool(self._read_s) and self._buffers > 0

    def _finish(self) -> None:
        self._buffers -= 1
        self._ready += 1
        self._number += 1
        self._left = self._read_s[self._number % len(self._read_s)]
