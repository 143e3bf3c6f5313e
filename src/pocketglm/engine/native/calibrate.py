"""What the machine does for the native engine: bandwidths, and the times of a package's own blocks.

Enters: a package and a number of threads. Leaves: `Bandwidths` and `Rates` from short runs, a few
seconds in all. Up to `MEASURED_BYTES` of blocks are run: enough not to fit into a cache.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.contract import Batch, EngineOptions, Head, KVState, Segment, embed
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.native.stage import NativeStage
from pocketglm.package.layout import block_file
from pocketglm.package.reader import Package
from pocketglm.plan.kv_cache import KV_TYPES, KVType, kv_bytes_per_token
from pocketglm.plan.planner import spread_evenly
from pocketglm.plan.rates import Bandwidths, Rates

MEASURED_BYTES = 192 << 20
READ_BYTES = 128 << 20
READ_AT_ONCE = 8 << 20
DOT_ROUNDS = 1_000_000  # some milliseconds
ROUNDS = 5
LEAST_SECONDS = 0.04
"""Of each kind of step: short ones are repeated until then."""
MOST_STEPS = 40
LEAST_TOKENS, MOST_TOKENS, TOKENS_S = 12, 100, 0.25
"""Whole tokens are made until this many seconds have passed."""
LEAST_STREAMED, STREAMED_S = 3, 0.3
"""Passes that are read, and seconds, each of the times that they are measured."""
MORE_READING = 2
"""Times as long as computing, in a pass with few blocks read."""
LONG_CONTEXT = 1024
PREFILL_ROWS = 256
STATE_BYTES = 64 << 20
"""A cache that is filled to measure what its positions cost takes this at most, in float16."""


def measure_bandwidths(package: Package, threads: int) -> Bandwidths:
    """Reading RAM, reading the package's files past the page cache, byte dot products in registers."""
    from pocketglm.engine.native import _kernels

    memory = _touched(READ_BYTES)
    reads = [len(memory) / _kernels.time_read(memory, threads) for _ in range(ROUNDS)]
    dots = [_kernels.dot_product_rate(DOT_ROUNDS, threads) for _ in range(ROUNDS)]
    return Bandwidths(max(reads), disk_rate(_files(package, measured_blocks(package))), max(dots))


def measured_blocks(package: Package) -> range:
    """The first blocks that together are as large as `MEASURED_BYTES`, at least two, or all."""
    total = 0
    for index in range(package.spec.num_blocks):
        total += package.manifest.files[block_file(index)].size
        if total >= MEASURED_BYTES and index > 0:
            return range(index + 1)
    return range(package.spec.num_blocks)


def disk_rate(files: Iterable[Path]) -> float:
    """Bytes a second, read one file after the other as streamed blocks are: past the page cache where the
    file system can, into huge pages. Files whose pages are cached are then read from the disk all the same.
    """
    buffer = _huge_pages(READ_AT_ONCE)
    total, began = 0, time.perf_counter()
    for file in files:
        total += _read_whole(file, buffer)
    return total / (time.perf_counter() - began)


def measure_rates(package: Package, threads: int, bandwidths: Bandwidths) -> Rates:
    """Run the blocks of `measured_blocks`, and the head."""
    blocks = measured_blocks(package)
    usual: KVType = "float16"
    positions = {}
    with _loaded(package, blocks, usual, threads) as stage, _loaded_head(package, threads) as head:
        clock = _Clock(package, stage)
        clock.step(0)  # the weights are in memory and the kernels' tables made
        tokens = [clock.token(package, head)]
        row_s, row_position_s = clock.prefill()
        tokens.append(clock.token(package, head))
        positions[usual] = clock.position_s(_least_position_s(package, usual, bandwidths))
        tokens.append(clock.token(package, head))
    # Other work may take a processor for a second, and double one of the three, seldom two
    blocks_s, head_s, step_s = (statistics.median(seconds) for seconds in zip(*tokens, strict=True))
    disk = _Disk(package, blocks, threads, blocks_s)
    disk.measure()
    for kv in (kv for kv in KV_TYPES if kv != usual):
        with _loaded(package, blocks, kv, threads) as stage:
            positions[kv] = _Clock(package, stage).position_s(_least_position_s(package, kv, bandwidths))
        disk.measure()  # between other things: what others do with it comes and goes within seconds
    return Rates(
        bandwidths,
        block_bytes=_size(package, blocks) // len(blocks),
        block_s=blocks_s / len(blocks),
        position_s=positions,
        row_s=row_s / len(blocks),
        row_position_s=row_position_s / len(blocks),
        head_s=head_s,
        step_s=step_s,
        streamed=disk.rate(),
        crowding=disk.crowding(),
    )


class _Clock:
    """Times passes of a stage. Sequence 0 is short, sequence 1 as long as `filled`."""

    def __init__(self, package: Package, stage: NativeStage) -> None:
        self._spec = package.spec
        self._stage = stage
        random = np.random.default_rng(0)
        self._hidden = random.standard_normal((PREFILL_ROWS, self._spec.hidden_size), np.float32)
        self.filled = _filled_positions(package, len(stage.blocks))
        for sequence in (0, 1):
            stage.open(sequence)
        shape = (len(stage.blocks), self.filled, self._spec.num_kv_heads, self._spec.head_dim)
        stage.restore(1, KVState(np.zeros(shape, np.float16), np.zeros(shape, np.float16)))

    def step(self, sequence: int) -> float:
        """Seconds of a pass of one row."""
        return _usual_seconds(lambda: self._forward(sequence, 1))

    def token(self, package: Package, head: Head) -> tuple[float, float, float]:
        """Seconds of blocks, head and Python for a token, the medians of tokens one after the other: alone
        and repeated, a head or a few blocks may stay in the processor's cache, where no token finds them."""
        found: list[tuple[float, float, float]] = []
        while len(found) < LEAST_TOKENS or (len(found) < MOST_TOKENS and sum(map(sum, found)) < TOKENS_S):
            blocks_s = _seconds(lambda: self._forward(0, 1))
            began = time.perf_counter()
            logits = head.logits(self._hidden[:1])
            head_s = time.perf_counter() - began
            began = time.perf_counter()
            embed(package, [int(logits[-1].argmax())])
            found.append((blocks_s, head_s, time.perf_counter() - began))
        blocks, heads, steps = zip(*found, strict=True)
        return statistics.median(blocks), statistics.median(heads), statistics.median(steps)

    def streamed(self) -> float:
        """Seconds of a pass of one row with blocks that are read: the median of a while. The first pass
        finds less read ahead than the others."""
        self._forward(0, 1)
        found: list[float] = []
        while len(found) < LEAST_STREAMED or sum(found) < STREAMED_S:
            found.append(_seconds(lambda: self._forward(0, 1)))
        return statistics.median(found)

    def prefill(self) -> tuple[float, float]:
        """Seconds of a row among many, and what a position cached before them adds."""
        times = []
        for sequence in (0, 1):
            before = self._stage.length(sequence)
            seconds = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                self._forward(sequence, PREFILL_ROWS)
                seconds.append(time.perf_counter() - began)
                self._stage.truncate(sequence, before)
            times.append(min(seconds) / PREFILL_ROWS)
        return times[0], max(0.0, times[1] - times[0]) / self.filled

    def position_s(self, least: float) -> float:
        """Seconds that a cached position adds to a block's pass of one row, `least` or more: short runs may
        not tell it from noise. Long and short passes take turns, so that other work on the machine meets
        both."""
        self.step(1)
        long, short = [], []
        for _ in range(ROUNDS):
            long.append(self.step(1))
            short.append(self.step(0))
        return max(least, (min(long) - min(short)) / self.filled / len(self._stage.blocks))

    def _forward(self, sequence: int, rows: int) -> None:
        start = self._stage.length(sequence)
        index = np.arange(start, start + rows, dtype=np.int32)
        segment = Segment(sequence, start, np.repeat(index[None, :], self._spec.position_axes, axis=0))
        self._stage.forward(self._hidden[:rows], Batch((segment,)))


def _least_position_s(package: Package, kv: KVType, bandwidths: Bandwidths) -> float:
    """The time that a position's bytes of one block take to be read."""
    return kv_bytes_per_token(package.spec, kv) / package.spec.num_blocks / bandwidths.read


class _Disk:
    """Times passes of one row with all blocks read, and with so few that reading still takes longer than
    computing; one right after the other, for a disk may be shared.

    With reading of `r` seconds a block and `c` seconds of computing in all, a pass that reads `n` blocks
    takes n r + c x / (1 - x), `x` being what both lose while both are at work.
    """

    def __init__(self, package: Package, blocks: range, threads: int, compute_s: float) -> None:
        self._package = package
        self._blocks = blocks
        self._threads = threads
        self._compute_s = compute_s
        self._block_s: list[float] = []
        self._crowding: list[float] = []

    def measure(self) -> None:
        """Once more."""
        count = len(self._blocks)
        whole_s = self._pass_s(count)
        few = min(count // 2, round(MORE_READING * self._compute_s / whole_s * count) + 1)
        few_s = self._pass_s(few) if few else 0.0
        if few_s < MORE_READING / 2 * self._compute_s:  # the disk is too fast for this, or there is one block
            self._block_s.append(whole_s / count)
            self._crowding.append(0.0)
            return
        lost = whole_s - (whole_s - few_s) / (count - few) * count
        lost = min(max(0.0, lost), self._compute_s, whole_s / 2)  # a disk may have changed between the two
        self._block_s.append((whole_s - lost) / count)
        self._crowding.append(lost / (lost + self._compute_s))

    def crowding(self) -> float:
        """Over all times, as the rate: what reading and computing lose comes and goes within seconds too."""
        return statistics.mean(self._crowding)

    def rate(self) -> float:
        """Bytes a second, over all times: between a busy disk's rate and an idle one's."""
        return _size(self._package, self._blocks) / len(self._blocks) / statistics.mean(self._block_s)

    def _pass_s(self, count: int) -> float:
        """With `count` blocks read, spread evenly as a plan has them."""
        streamed = frozenset(self._blocks[index] for index in spread_evenly(len(self._blocks), count))
        with _loaded(self._package, self._blocks, "float16", self._threads, streamed) as stage:
            return _Clock(self._package, stage).streamed()


@contextmanager
def _loaded_head(package: Package, threads: int) -> Iterator[Head]:
    head = NativeEngine().load_head(package, EngineOptions(threads=threads))
    try:
        yield head
    finally:
        head.release()


@contextmanager
def _loaded(
    package: Package, blocks: range, kv: KVType, threads: int, streamed: frozenset[int] | None = None
) -> Iterator[NativeStage]:
    options = EngineOptions(threads=threads, kv=kv, streamed_blocks=streamed)
    stage = NativeEngine().load_blocks(package, blocks, options)
    try:
        yield stage
    finally:
        stage.release()


def _filled_positions(package: Package, blocks: int) -> int:
    spec = package.spec
    position = 2 * 2 * blocks * spec.num_kv_heads * spec.head_dim
    return max(1, min(LONG_CONTEXT, spec.max_context - MOST_STEPS, STATE_BYTES // position))


def _files(package: Package, blocks: range) -> list[Path]:
    return [package.path / block_file(index) for index in blocks]


def _size(package: Package, blocks: range) -> int:
    return sum(package.manifest.files[block_file(index)].size for index in blocks)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _usual_seconds(run: Callable[[], object]) -> float:
    found: list[float] = []
    while len(found) < 3 or (sum(found) < LEAST_SECONDS and len(found) < MOST_STEPS):
        found.append(_seconds(run))
    return _usual(found)


def _usual(seconds: list[float]) -> float:
    """The first quarter of times: others at work on the machine make some of them longer, none shorter."""
    return sorted(seconds)[len(seconds) // 4]


def _touched(size: int) -> NDArray[np.uint8]:
    """Memory in huge pages where the system has them, as mapped package files are."""
    array = np.frombuffer(_huge_pages(size), np.uint8)
    array[:] = 1
    return array


def _huge_pages(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _read_whole(file: Path, buffer: mmap.mmap) -> int:
    """Bytes of the file, read past the page cache, or through it where that does not work."""
    for flags in (getattr(os, "O_DIRECT", 0), 0):
        try:
            descriptor = os.open(file, os.O_RDONLY | flags)
        except OSError:
            continue
        try:
            at = 0
            while count := os.preadv(descriptor, [buffer], at):
                at += count
                if count < len(buffer):
                    break
            return at
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return file.stat().st_size
