"""Blocks that are read from disk at every pass: which ones, in any pattern, with the very same results."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm.engine.contract import Batch, EngineOptions, Segment
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.native.memory_plan import buffer_bytes
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package

SPEC = replace(SPECS["sandwich"], num_blocks=7, intermediate_size=8192)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    path = tmp_path_factory.mktemp("streaming") / "package"
    with Package.open(write_package(path, SPEC, random_tensors(SPEC), FORMATS["float16"])) as opened:
        yield opened


def run(package: Package, options: EngineOptions, splits: tuple[int, ...] = ()) -> np.ndarray:
    runner = Runner(NativeEngine("float32"), package, splits=splits, options=options)
    logits = runner.run(prompt(SPEC, 12), chunks=(7, 8, 9, 10, 11))
    runner.release()
    return logits


@pytest.mark.parametrize("blocks", [{0}, {6}, {3}, {0, 6}, {1, 2, 3}, {0, 2, 4, 6}, {5, 6}, set(range(7))])
def test_chosen_blocks_are_read(package: Package, blocks: set[int]) -> None:
    options = EngineOptions(threads=2, streamed_blocks=frozenset(blocks))
    stage = NativeEngine().load_blocks(package, range(7), options)
    assert [stage.place_of(index) == "disk" for index in range(7)] == [index in blocks for index in range(7)]
    size = package.manifest.files["block_00.mnn.weight"].size
    usage = stage.usage()
    assert usage["streamed_bytes"] == len(blocks) * size
    assert usage["weight_bytes"] == (7 - len(blocks)) * size + 2 * buffer_bytes(size)
    stage.release()
    expected = run(package, EngineOptions(threads=2))
    assert np.array_equal(run(package, options), expected)
    assert np.array_equal(run(package, options, splits=(3, 4)), expected)


def test_nothing_chosen_means_nothing_read(package: Package) -> None:
    stage = NativeEngine().load_blocks(package, range(7), EngineOptions(streamed_blocks=frozenset()))
    assert stage.usage()["streamed_bytes"] == 0
    assert {stage.place_of(index) for index in range(7)} == {"ram"}


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="this system has no huge pages to ask for",
)
def test_read_buffers_ask_for_huge_pages_of_their_own(package: Package) -> None:
    """Memory that was used before has small pages already, which halves the rate of a fast disk; after a
    first model the heap has such memory."""
    options = EngineOptions(threads=1, streamed_blocks=frozenset({3}))
    NativeEngine().load_blocks(package, range(7), options).release()
    before = bytes_for_huge_pages()
    stage = NativeEngine().load_blocks(package, range(7), options)
    size = package.manifest.files["block_03.mnn.weight"].size
    assert bytes_for_huge_pages() - before >= 2 * buffer_bytes(size)
    stage.release()
    assert bytes_for_huge_pages() == before


def bytes_for_huge_pages() -> int:
    """Of mappings without a name, which the heap has, that the process wants huge pages for."""
    size, nameless, total = 0, False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if words[0].count("-") == 1 and not words[0].endswith(":"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            size, nameless = end - start, len(words) == 5
        elif words[0] == "VmFlags:" and nameless and "hg" in words:
            total += size
    return total


@pytest.mark.parametrize("wrong", [7, -1, "3", 2.0, True])
def test_blocks_that_the_model_does_not_have_are_refused(package: Package, wrong: Any) -> None:
    options = EngineOptions(streamed_blocks=frozenset({6, wrong}))
    with pytest.raises(EngineError, match="the model has 7 blocks"):
        NativeEngine().load_blocks(package, range(7), options)


def test_blocks_of_other_stages_may_be_named(package: Package) -> None:
    options = EngineOptions(streamed_blocks=frozenset({1, 6}))
    stage = NativeEngine().load_blocks(package, range(3), options)
    assert [stage.place_of(index) for index in range(3)] == ["ram", "disk", "ram"]


@pytest.mark.parametrize("blocks", [set(), {0}, {6}, {1, 3, 5}, set(range(7))])
def test_under_a_limit_the_bits_are_the_same(package: Package, blocks: set[int]) -> None:
    options = EngineOptions(
        threads=1, context=64, streamed_blocks=frozenset(blocks), memory_bytes=1 << 40, head_here=True
    )
    needs = [NativeEngine("float32").memory_need(package, part, options) for part in (range(7), None)]
    limited = replace(options, memory_bytes=sum(needs))
    assert np.array_equal(run(package, limited), run(package, EngineOptions(threads=1)))


def test_chosen_blocks_must_fit_the_limit(package: Package) -> None:
    options = EngineOptions(
        threads=1, context=64, streamed_blocks=frozenset({5, 6}), memory_bytes=1 << 40, head_here=False
    )
    need = NativeEngine().memory_need(package, range(7), options)
    NativeEngine().load_blocks(package, range(7), replace(options, memory_bytes=need)).release()
    with pytest.raises(EngineError, match="5 blocks in memory and two at a time of 2"):
        NativeEngine().load_blocks(package, range(7), replace(options, memory_bytes=need - 1))


def test_the_engines_own_choice_is_spread_over_the_stage(package: Package) -> None:
    """So that the reader is at work during the whole pass."""
    options = EngineOptions(threads=1, context=64, memory_bytes=1 << 40, head_here=False)
    sizes = [NativeEngine().memory_need(package, range(7), replace(options, streamed_blocks=chosen))
             for chosen in (frozenset({4, 5, 6}), frozenset({5, 6}))]  # fmt: skip
    stage = NativeEngine().load_blocks(package, range(7), replace(options, memory_bytes=sizes[0]))
    assert [index for index in range(7) if stage.place_of(index) == "disk"] == [2, 4, 6]
    assert sizes[1] > sizes[0]


@pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="what a process has read is known on Linux only"
)
def test_the_next_pass_is_read_before_it_begins(package: Package) -> None:
    """Other stages of the model, on a GPU say, compute meanwhile."""
    size = package.manifest.files["block_00.mnn.weight"].size
    before = bytes_read()
    stage = NativeEngine().load_blocks(package, range(7), EngineOptions(streamed_blocks=frozenset({1, 3, 5})))
    stage.open(0)
    row = np.ones((1, SPEC.hidden_size), np.float32)
    for start in range(2):
        stage.forward(row, batch_at(start))
    expected = (2 * 3 + 2) * size  # two passes, and two blocks of the third
    deadline = time.monotonic() + 30
    while bytes_read() - before < expected and time.monotonic() < deadline:
        time.sleep(0.01)
    assert expected <= bytes_read() - before < expected + size
    stage.release()


def bytes_read() -> int:
    """By all threads of this process."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def test_a_failed_read_is_told_and_leaves_the_cache(tmp_path: Path) -> None:
    path = write_package(tmp_path / "package", SPEC, random_tensors(SPEC), FORMATS["float16"])
    with Package.open(path) as package:
        options = EngineOptions(threads=1, streamed_blocks=frozenset({1, 3, 5}))
        stage = NativeEngine().load_blocks(package, range(7), options)
        stage.open(0)
        row = np.ones((1, SPEC.hidden_size), np.float32)
        stage.forward(row, batch_at(0))
        os.truncate(path / "block_05.mnn.weight", 1000)
        with pytest.raises(EngineError, match=r"block_05\.mnn\.weight: cannot be read"):
            stage.forward(row, batch_at(1))
        assert stage.length(0) == 1
        stage.release()


def batch_at(start: int) -> Batch:
    return Batch((Segment(0, start, np.array([[start]], np.int32)),))
