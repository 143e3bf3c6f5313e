"""Several stages as one: they agree on every sequence, whatever fails in the midst of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketglm.engine.contract import Batch, EngineOptions, Segment
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.reference.engine import ReferenceEngine
from pocketglm.errors import EngineError
from pocketglm.generate.stage_chain import StageChain
from pocketglm.package.reader import Package

ROWS = np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32)


@pytest.fixture
def chain(causal_path: Path) -> Iterator[StageChain]:
    """A stage of one block on each of two engines, and a third."""
    options = EngineOptions(threads=1, kv="float32")
    with Package.open(causal_path) as package:
        engines = (NativeEngine(), ReferenceEngine(), NativeEngine())
        stages = [e.load_blocks(package, range(i, i + 1), options) for i, e in enumerate(engines)]
        made = StageChain(list(stages))
        yield made
        made.release()


def batch(start: int, count: int, sequence: int = 0) -> Batch:
    positions = np.arange(start, start + count, dtype=np.int32)[None]
    return Batch((Segment(sequence, start, positions),))


def fail_in(chain: StageChain, index: int, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> None:
        raise EngineError("no room")

    for name in (method, f"{method}_in_place"):
        if hasattr(chain.stages[index], name):
            monkeypatch.setattr(chain.stages[index], name, failing)


def test_it_computes_what_its_stages_compute_in_turn(chain: StageChain) -> None:
    chain.open(0)
    found = chain.forward(ROWS, batch(0, 9))
    expected = ROWS
    for stage in chain.stages:
        stage.open(1)
        expected = stage.forward(expected, batch(0, 9, 1))
    assert np.array_equal(found, expected)
    assert chain.blocks == range(3)
    assert chain.length(0) == 9


def test_what_a_caller_may_need_again_is_not_overwritten(chain: StageChain) -> None:
    """One stage alone computes in place; before others the input stays, since a pass may be made again."""
    hidden = ROWS.copy()
    chain.open(0)
    chain.forward(hidden, batch(0, 9))
    assert np.array_equal(hidden, ROWS)
    alone = StageChain(chain.stages[:1])
    alone.open(1)
    expected = chain.stages[0].forward(hidden, batch(0, 9, 1))
    alone.truncate(1, 0)
    found = alone.forward(hidden, batch(0, 9, 1))
    assert found is hidden
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_failed_pass_leaves_every_stage_as_it_was(
    chain: StageChain, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.open(0)
    chain.forward(ROWS[:4], batch(0, 4))
    with monkeypatch.context() as patch:
        fail_in(chain, index, "forward", patch)
        with pytest.raises(EngineError, match="no room"):
            chain.forward(ROWS[4:], batch(4, 5))
    assert [stage.length(0) for stage in chain.stages] == [4, 4, 4]
    chain.forward(ROWS[4:], batch(4, 5))
    assert chain.length(0) == 9


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_cannot_be_opened_everywhere_is_open_nowhere(
    chain: StageChain, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_in(chain, index, "open", patch)
        with pytest.raises(EngineError, match="no room"):
            chain.open(0)
    assert chain.sequences == set()
    chain.open(0)
    assert chain.sequences == {0}


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("method", ["copy_prefix", "restore"])
def test_a_cache_is_filled_everywhere_or_nowhere(
    chain: StageChain, index: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.open(0)
    chain.forward(ROWS, batch(0, 9))
    state = chain.save(0)
    assert state.keys.shape == (3, 9, 4, 16)
    chain.open(1)

    def fill() -> None:
        if method == "restore":
            chain.restore(1, state)
        else:
            chain.copy_prefix(0, 1, 9)

    with monkeypatch.context() as patch:
        fail_in(chain, index, method, patch)
        with pytest.raises(EngineError, match="no room"):
            fill()
    assert [stage.length(1) for stage in chain.stages] == [0, 0, 0]
    fill()
    assert np.array_equal(chain.save(1).keys, state.keys)


def test_refused_calls_change_nothing(chain: StageChain) -> None:
    for sequence in (0, 1):
        chain.open(sequence)
        chain.forward(ROWS[:3], batch(0, 3, sequence))
    with pytest.raises(EngineError):
        chain.copy_prefix(0, 1, 3)
    with pytest.raises(EngineError):
        chain.restore(1, chain.save(0))
    with pytest.raises(EngineError):
        chain.forward(ROWS[:2], batch(1, 2))
    assert [chain.length(sequence) for sequence in (0, 1)] == [3, 3]


def test_roll_back_where_stages_differ(chain: StageChain) -> None:
    chain.open(0)
    chain.forward(ROWS[:6], batch(0, 6))
    chain.stages[0].truncate(0, 2)
    assert chain.length(0) == 2
    chain.roll_back(0, 4)
    assert [stage.length(0) for stage in chain.stages] == [2, 4, 4]
