"""What the native engine takes on this machine beside weights and caches, asked of the engine itself.

Enters: a package. Leaves: sizes for a plan. Files are mapped and not read: this costs no time or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pocketglm.engine.contract import EngineOptions, KVType
from pocketglm.engine.native.engine import NativeEngine, extension
from pocketglm.engine.native.stage import NativeStage
from pocketglm.package.reader import Package

HEAD_ROWS = 4
"""Rows that go through the head together: a token, and those that prompt lookup guesses."""


@dataclass(frozen=True)
class WorkFigures:
    """`work(kv, context)` is what a stage takes for activations and scratch, `head` the head."""

    work: Callable[[KVType, int], int]
    head: int


@contextmanager
def work_figures(package: Package, threads: int) -> Iterator[WorkFigures]:
    """Figures while the package is mapped."""
    engine = NativeEngine()
    stages: dict[KVType, NativeStage] = {}

    @cache
    def work(kv: KVType, context: int) -> int:
        if kv not in stages:
            options = EngineOptions(threads=threads, kv=kv)
            stages[kv] = engine.load_blocks(package, range(package.spec.num_blocks), options)
        return stages[kv].work_bytes(context)

    head = engine.load_head(package, EngineOptions(threads=threads))
    try:
        yield WorkFigures(work, head.work_bytes(HEAD_ROWS))
    finally:
        head.release()
        for stage in stages.values():
            stage.release()


def engine_build() -> str:
    """Names this build of the engine: its file's size and time, and the kernels it chooses."""
    module = extension()
    status = Path(str(module.__file__)).stat()
    return f"{status.st_size}-{status.st_mtime_ns}-{module.isa_names()[0]}"
