"""When weights are held and when they stream, and that streaming is bounded."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from engine.contract_specs import SPECS
from engine.tiny_packages import random_tensors, write_package
from pocketglm.engine.contract import Batch, EngineOptions, Segment
from pocketglm.engine.reference import weights
from pocketglm.engine.reference.engine import ReferenceEngine, block_bytes, head_bytes
from pocketglm.engine.reference.stage import ReferenceStage
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat

SPEC = replace(SPECS["plain"], hidden_size=128, intermediate_size=512, num_blocks=4)
PART = 16 << 10
"""Bytes of weights dequantized at a time in these tests."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    path = tmp_path_factory.mktemp("engine") / "package"
    with Package.open(write_package(path, SPEC, random_tensors(SPEC), WeightFormat(4, 32))) as opened:
        yield opened


def run(stage: ReferenceStage, rows: int = 3) -> np.ndarray:
    stage.open(0)
    positions = np.arange(rows, dtype=np.int32)[None]
    hidden = np.random.default_rng(0).normal(size=(rows, SPEC.hidden_size)).astype(np.float32)
    return stage.forward(hidden, Batch((Segment(0, 0, positions),)))


def load_and_run(package: Package, memory_bytes: int) -> tuple[np.ndarray, int, int]:
    """Output, bytes held after loading, and the peak of a forward pass above them."""
    tracemalloc.start()
    try:
        options = EngineOptions(memory_bytes=memory_bytes)
        stage = ReferenceEngine().load_blocks(package, range(SPEC.num_blocks), options)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        output = run(stage)
        return output, held, tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()


def test_memory_budget_decides(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BYTES_AT_ONCE", PART)
    size = SPEC.num_blocks * block_bytes(SPEC)
    resident, resident_held, _ = load_and_run(package, 2 * (size + head_bytes(SPEC)))
    streamed, streamed_held, peak = load_and_run(package, size)
    np.testing.assert_allclose(streamed, resident, atol=1e-5)
    assert resident_held > 0.95 * size
    assert streamed_held < 0.02 * size
    assert peak < 0.5 * block_bytes(SPEC)  # half of it the new KV cache


def test_float32_weights_are_used_in_place(tmp_path: Path) -> None:
    path = write_package(tmp_path / "package", SPEC, random_tensors(SPEC), WeightFormat(32))
    with Package.open(path) as package:
        _, held, _ = load_and_run(package, 1 << 40)
    assert held < 0.02 * SPEC.num_blocks * block_bytes(SPEC)


def test_head_streams_under_a_small_budget(package: Package) -> None:
    hidden = np.random.default_rng(0).normal(size=(5, SPEC.hidden_size)).astype(np.float32)
    heads = [ReferenceEngine().load_head(package, EngineOptions(memory_bytes=m)) for m in (1, 1 << 30)]
    np.testing.assert_allclose(heads[0].logits(hidden), heads[1].logits(hidden), atol=1e-5)


def test_thread_limit_is_for_the_call_only(package: Package) -> None:
    def blas_threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = blas_threads()
    stage = ReferenceEngine().load_blocks(package, range(1), EngineOptions(threads=1))
    seen: list[list[int]] = []
    source = stage._parts[0]
    stage._parts[0] = lambda: (seen.append(blas_threads()), source())[1]
    run(stage)
    assert seen == [[1] * len(before)]
    assert blas_threads() == before


def test_failed_allocation_leaves_the_cache(package: Package) -> None:
    stage = ReferenceEngine().load_blocks(package, range(2), EngineOptions())
    run(stage)
    good = stage._parts[1]

    def fail() -> weights.FileWeights:
        raise MemoryError

    stage._parts[1] = fail
    hidden = np.ones((1, SPEC.hidden_size), dtype=np.float32)
    batch = Batch((Segment(0, 3, np.array([[3]], dtype=np.int32)),))
    with pytest.raises(EngineError, match="out of memory"):
        stage.forward(hidden, batch)
    assert stage.length(0) == 3
    stage._parts[1] = good
    assert stage.forward(hidden, batch).shape == hidden.shape
