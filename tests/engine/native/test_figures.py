"""What the native engine says that it will take is what it takes; calibrations give usable figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from generate.tiny_models import CAUSAL, GMASK, PREFIXED, SOP, write_tiny
from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch, EngineOptions, Segment
from pocketglm.engine.native.calibrate import (
    disk_rate,
    measure_bandwidths,
    measure_rates,
    measured_blocks,
)
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.native.figures import HEAD_ROWS, engine_build, work_figures
from pocketglm.engine.native.stage import NativeStage
from pocketglm.engine.positions import PositionTracker
from pocketglm.package.reader import Package
from pocketglm.plan.kv_cache import KV_TYPES
from pocketglm.plan.native_memory import all_quantized, work_bytes
from pocketglm.plan.python_memory import CHUNK_ROWS
from pocketglm.quantize.formats import WeightFormat


@pytest.fixture(scope="module", params=[CAUSAL, PREFIXED], ids=["causal", "prefix"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    with Package.open(write_tiny(tmp_path_factory.mktemp("figures") / "p", request.param)) as opened:
        yield opened


def fill(stage: NativeStage, spec: ModelSpec, context: int) -> None:
    """A sequence of `context` tokens as a session runs it, the last one by itself."""
    tokens = [1] * context
    first = CHUNK_ROWS
    if spec.prefix_tokens is not None:
        tokens[-3:-1] = [GMASK, SOP]
        first = context - 1
    tracker = PositionTracker(spec)
    stage.open(0)
    ends = [*range(first, context - 1, CHUNK_ROWS), context - 1, context]
    start = 0
    for end in ends:
        positions, prefix = tracker.advance(tokens[start:end])
        hidden = np.ones((end - start, spec.hidden_size), np.float32)
        stage.forward(hidden, Batch((Segment(0, start, positions, prefix),)))
        start = end


@pytest.mark.parametrize("kv", KV_TYPES)
@pytest.mark.parametrize("context", [40, 700])
def test_a_full_context_takes_the_work_memory_that_was_said(package: Package, kv: str, context: int) -> None:
    options = EngineOptions(threads=2, kv=kv)  # type: ignore[arg-type]
    stage = NativeEngine().load_blocks(package, range(package.spec.num_blocks), options)
    with work_figures(package, 2) as figures:
        said = figures.work(kv, context)  # type: ignore[arg-type]
    fill(stage, package.spec, context)
    taken = stage.usage()["buffer_bytes"]
    stage.release()
    assert 0.98 * said <= taken <= said


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("spec_name", SPECS)
def test_no_pass_takes_more_than_the_formula(tmp_path: Path, spec_name: str, format_name: str) -> None:
    """Of any shape and format, for few and many threads, with short and long contexts."""
    spec = replace(SPECS[spec_name], max_context=8192)
    path = write_package(tmp_path / "p", spec, random_tensors(spec), FORMATS[format_name])
    with Package.open(path) as package:
        quantized = all_quantized(package.manifest, range(spec.num_blocks))
        assert quantized == FORMATS[format_name].quantized
        for threads in (1, 16):
            with work_figures(package, threads) as figures:
                for context in (1, 70, 700, 8192):
                    most = work_bytes(spec, threads, context, quantized)
                    assert max(figures.work(kv, context) for kv in KV_TYPES) <= most


def test_a_large_model_takes_nearly_what_the_formula_says(tmp_path: Path) -> None:
    wide = replace(CAUSAL, hidden_size=1024, num_heads=16, head_dim=64, intermediate_size=4096, num_blocks=1)
    with Package.open(write_tiny(tmp_path / "p", wide, weight_format=WeightFormat(4, 64))) as package:
        assert all_quantized(package.manifest, range(1))
        with work_figures(package, 2) as figures:
            assert figures.work("float16", 512) > 0.75 * work_bytes(package.spec, 2, 512, quantized=True)


def test_the_head_takes_what_it_says(package: Package) -> None:
    head = NativeEngine().load_head(package, EngineOptions(threads=2))
    with work_figures(package, 2) as figures:
        head.logits(np.ones((HEAD_ROWS, package.spec.hidden_size), np.float32))
        assert head.usage()["buffer_bytes"] == figures.head == head.work_bytes(HEAD_ROWS)
    assert head.work_bytes(1) <= head.work_bytes(300)
    head.release()


@pytest.mark.parametrize("sizes", [(-1, 1, 0), (0, 0, 0), (0, 1, -1), (2**31 - 1, 1, 0)])
def test_impossible_passes_are_refused(package: Package, sizes: tuple[int, int, int]) -> None:
    stage = NativeEngine().load_blocks(package, range(1), EngineOptions(threads=1))
    with pytest.raises(ValueError, match=r"rows"):
        stage._loaded().work_bytes(*sizes)
    stage.release()


def test_a_calibration_measures_everything(package: Package) -> None:
    bandwidths = measure_bandwidths(package, 2)
    assert min(bandwidths.read, bandwidths.disk, bandwidths.dot) > 0
    rates = measure_rates(package, 2, bandwidths)
    assert min(rates.block_s, rates.row_s, rates.head_s, rates.step_s, rates.streamed) > 0
    assert 0 <= rates.crowding < 1
    assert set(rates.position_s) == set(KV_TYPES)
    assert rates.measured
    assert rates.block_bytes == package.manifest.files["block_00.mnn.weight"].size
    assert measured_blocks(package) == range(package.spec.num_blocks)


def test_files_of_odd_sizes_are_read_whole(tmp_path: Path) -> None:
    for name, size in (("a", 1), ("b", 4097), ("c", (8 << 20) + 5)):
        (tmp_path / name).write_bytes(bytes(size))
    assert disk_rate(sorted(tmp_path.iterdir())) > 0


def test_a_build_has_a_name() -> None:
    assert engine_build() == engine_build()
    assert engine_build().rsplit("-", 1)[1] in ("avx512vnni", "avx512", "avx2", "neon", "scalar", "i8mm")
