"""What the native engine adds to the contract: types of KV cache, instruction sets, memory, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.spec import ModelSpec, RotarySpec
from pocketglm.engine.contract import Batch, EngineOptions, KVType, Segment
from pocketglm.engine.native import _engine, _kernels
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.native.memory_plan import HEAD_BUFFERS, buffer_bytes, cache_bytes, work_bytes
from pocketglm.engine.reference.engine import ReferenceEngine
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package

ISA_NAMES = _engine.isa_names()


def open_spec(tmp_path: Path, spec: ModelSpec, format_name: str = "float32") -> Package:
    path = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS[format_name])
    return Package.open(path)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Package]:
    with open_spec(tmp_path, SPECS["plain"]) as package:
        yield package


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("isa", ISA_NAMES)
@pytest.mark.parametrize("format_name", ["float32", "float16", "int8-g64", "int4-g32"])
@pytest.mark.parametrize("spec_name", SPECS)
def test_every_instruction_set_agrees_with_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec_name: str, format_name: str, isa: str
) -> None:
    monkeypatch.setenv("POCKETGLM_ISA", isa)
    with open_spec(tmp_path, SPECS[spec_name], format_name) as package:
        ids = prompt(package.spec, 70)
        expected = Runner(ReferenceEngine(), package).run(ids)
        runner = Runner(NativeEngine("float32"), package, options=EngineOptions(threads=2))
        assert runner.stages[0].usage()["isa"] == isa
        limit = 5e-2 if FORMATS[format_name].quantized else 1e-5
        assert relative_difference(runner.run(ids), expected) < limit
        assert relative_difference(runner.run(ids, 1, chunks=(40, 41, 64, 65)), expected) < limit


@pytest.mark.parametrize("rows", [1, 4, 5, 6, 8, 14, 40])
@pytest.mark.parametrize("format_name", ["int8-g64", "int8-row-symmetric", "int4-g32", "int4-g64-symmetric"])
@pytest.mark.parametrize("isa", _kernels.isa_names())
def test_outliers_do_not_take_the_precision_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, format_name: str, rows: int
) -> None:
    """Two input channels stand 100 times above the others: in int8 by groups those would be lost."""
    monkeypatch.setenv("POCKETGLM_ISA", isa)
    spec = SPECS["plain"]
    tensors = random_tensors(spec)
    tensors["norm.weight"][[3, 40]] = 100.0
    path = write_package(tmp_path / "package", spec, tensors, FORMATS[format_name])
    with Package.open(path) as package:
        hidden = np.random.default_rng(0).normal(size=(rows, spec.hidden_size)).astype(np.float32)
        hidden[:, [3, 40]] = np.random.default_rng(1).uniform(0.8, 1.2, (rows, 2))
        found = NativeEngine().load_head(package, EngineOptions()).logits(hidden)
        expected = ReferenceEngine().load_head(package, EngineOptions()).logits(hidden)
        # What the ordinary channels add is about 1; with a scale of 100 / 127 half of it would be gone
        assert np.abs(found - expected).max() < 0.05


def test_unknown_instruction_set_is_refused(plain: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETGLM_ISA", "mmx")
    with pytest.raises(EngineError, match=r"POCKETGLM_ISA.*scalar"):
        NativeEngine().load_head(plain, EngineOptions())


@pytest.mark.parametrize(("kv", "limit"), [("float32", 1e-5), ("float16", 3e-3), ("int8", 3e-2)])
def test_long_contexts_in_every_cache_type(tmp_path: Path, kv: KVType, limit: float) -> None:
    """Many pages, divided among the threads, with heads that are no whole vectors."""
    spec = replace(
        SPECS["plain"], num_kv_heads=1, head_dim=20, max_context=4096, rotary=RotarySpec("half", 20, 10000.0)
    )
    with open_spec(tmp_path, spec) as package:
        ids = prompt(spec, 1100)
        expected = Runner(ReferenceEngine(), package).run(ids)
        for threads in (1, 3):
            runner = Runner(NativeEngine(), package, options=EngineOptions(threads=threads, kv=kv))
            found = runner.run(ids, chunks=(600, 1090, 1091, 1092))
            assert relative_difference(found, expected) < limit


def test_cache_takes_what_its_type_takes(plain: Package) -> None:
    spec = plain.spec
    sizes = {}
    for kv in ("float32", "float16", "int8"):
        stage = NativeEngine().load_blocks(plain, range(spec.num_blocks), EngineOptions(kv=kv))
        stage.open(0)
        stage.forward(np.ones((65, spec.hidden_size), np.float32), batch_of(spec, 65))
        sizes[kv] = stage.usage()["cache_bytes"]
    values = 2 * spec.num_blocks * 128 * spec.kv_size  # two pages of 64 positions
    assert sizes["float32"] == 4 * values
    assert sizes["float16"] == 2 * values
    assert sizes["int8"] == values + values // spec.head_dim * 4


def test_memory_is_given_back(plain: Package) -> None:
    spec = plain.spec
    stage = NativeEngine().load_blocks(plain, range(spec.num_blocks), EngineOptions())
    stage.open(0)
    stage.forward(np.ones((300, spec.hidden_size), np.float32), batch_of(spec, 300))
    full = stage.usage()["cache_bytes"]
    stage.truncate(0, 10)
    assert stage.usage()["cache_bytes"] == full * 2 // 5  # one page in use, one spare
    stage.close(0)
    assert stage.usage()["cache_bytes"] == 0


def memory_for(package: Package, held_blocks: float) -> EngineOptions:
    """A limit under which the weights have room for that many blocks, two of them in buffers."""
    files = package.manifest.files
    options = EngineOptions(threads=2, kv="float32", context=64)
    size = files["block_00.mnn.weight"].size
    weights = int(2 * buffer_bytes(size) + (held_blocks - 2) * size)
    caches = cache_bytes(package, package.spec.num_blocks, "float32", 64)
    rest = (
        files["head.mnn.weight"].size
        + HEAD_BUFFERS
        + caches
        + work_bytes(package, range(package.spec.num_blocks), options, 64)
    )
    return replace(options, memory_bytes=weights + rest)


@pytest.mark.parametrize("blocks", [5, 6])
@pytest.mark.parametrize("held", [2, 3, 4, 5])
def test_blocks_that_do_not_fit_are_read_in_turn(tmp_path: Path, blocks: int, held: int) -> None:
    spec = replace(SPECS["sandwich"], num_blocks=blocks, intermediate_size=8192)
    with open_spec(tmp_path, spec, "float16") as package:
        ids = prompt(spec, 12)
        expected = Runner(NativeEngine("float32"), package).run(ids)
        options = memory_for(package, held)
        runner = Runner(NativeEngine(), package, options=options)
        assert relative_difference(runner.run(ids, chunks=(7, 8, 9, 10, 11)), expected) < 1e-5
        usage = runner.stages[0].usage()
        taken = usage["weight_bytes"] + usage["cache_bytes"] + usage["buffer_bytes"]
        assert taken <= (options.memory_bytes or 0)
        size = package.manifest.files["block_00.mnn.weight"].size
        whole = held == blocks  # then nothing is read in turn, and there are no buffers
        assert usage["weight_bytes"] == (held - 2) * size + 2 * (size if whole else buffer_bytes(size))
        runner.release()


def test_memory_limits_that_cannot_hold(plain: Package) -> None:
    size = sum(plain.manifest.files[f"block_{index:02}.mnn.weight"].size for index in range(3))
    enough = memory_for(plain, 2).memory_bytes - 2 * buffer_bytes(1) + size  # type: ignore[operator]
    NativeEngine().load_blocks(plain, range(3), replace(memory_for(plain, 2), memory_bytes=enough))
    for missing in (1, size, enough - 1):
        options = replace(memory_for(plain, 2), memory_bytes=enough - missing)
        with pytest.raises(EngineError, match=r"memory limit.*at least \d+ MiB are needed"):
            NativeEngine().load_blocks(plain, range(3), options)


def test_a_head_with_little_memory_takes_fewer_rows_at_a_time(tmp_path: Path) -> None:
    """256 rows of 16384 float inputs are 16 MiB, a head's buffers under a limit 8 MiB."""
    spec = replace(SPECS["plain"], hidden_size=16384, num_blocks=1)
    with open_spec(tmp_path, spec) as package:
        size = package.manifest.files["head.mnn.weight"].size
        limited = EngineOptions(threads=2, memory_bytes=size + HEAD_BUFFERS)
        hidden = np.random.default_rng(0).normal(size=(300, spec.hidden_size)).astype(np.float32)
        heads = [NativeEngine().load_head(package, o) for o in (EngineOptions(threads=2), limited)]
        free, found = (head.logits(hidden) for head in heads)
        assert relative_difference(found, free) < 1e-5
        assert heads[0].usage()["buffer_bytes"] > HEAD_BUFFERS
        assert heads[1].usage()["buffer_bytes"] <= HEAD_BUFFERS


def test_cache_beyond_the_memory_limit_changes_nothing(plain: Package) -> None:
    spec = plain.spec
    stage = NativeEngine().load_blocks(plain, range(3), memory_for(plain, 3.2))
    stage.open(0)
    stage.forward(np.ones((1, spec.hidden_size), np.float32), batch_of(spec, 1))
    usage = stage.usage()
    stage.open(1)
    positions = np.arange(50_000, dtype=np.int32)[None]
    with pytest.raises(EngineError, match=r"memory limit.*KV cache"):
        stage.forward(np.ones((50_000, spec.hidden_size), np.float32), Batch((Segment(1, 0, positions),)))
    assert (stage.length(0), stage.length(1)) == (1, 0)
    assert stage.usage() == usage


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    spec = replace(SPECS["plain"], num_blocks=5, intermediate_size=8192)
    with open_spec(tmp_path, spec) as package:
        stage = NativeEngine().load_blocks(package, range(5), memory_for(package, 2))
        stage.open(0)
        row = np.ones((1, spec.hidden_size), np.float32)
        stage.forward(row, batch_of(spec, 1))
        path = package.path / "block_03.mnn.weight"
        os.truncate(path, 1000)
        with pytest.raises(EngineError, match=r"block_03\.mnn\.weight: cannot be read"):
            stage.forward(row, Batch((Segment(0, 1, np.array([[1]], np.int32)),)))
        assert stage.length(0) == 1
        stage.release()


def test_long_segments_go_in_slices(plain: Package) -> None:
    """More rows than go through the MLP at a time."""
    ids = prompt(plain.spec, 512) * 2
    expected = Runner(NativeEngine("float32"), plain).run(ids, chunks=(256, 512, 768))
    found = Runner(NativeEngine("float32"), plain).run(ids)
    assert relative_difference(found, expected) < 1e-5


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("format_name", ["float32", "int8-g64"])
def test_a_wide_gated_mlp_goes_in_pieces(tmp_path: Path, format_name: str, threads: int) -> None:
    """Several pieces a thread, the last one not whole, in one slice of many rows and one of few."""
    spec = replace(SPECS["llama3_scaling_odd_sizes"], intermediate_size=1436, mlp_bias=True)
    with open_spec(tmp_path, spec, format_name) as package:
        ids = prompt(spec, 259)
        expected = Runner(ReferenceEngine(), package).run(ids)
        found = Runner(NativeEngine("float32"), package, options=EngineOptions(threads=threads)).run(ids)
        assert relative_difference(found, expected) < (5e-2 if FORMATS[format_name].quantized else 1e-5)


def test_work_memory_of_a_long_prompt_is_given_back(tmp_path: Path) -> None:
    """When tokens are decoded; what a few rows more or less need is kept."""
    spec = replace(SPECS["plain"], intermediate_size=16 * 1024)
    with open_spec(tmp_path, spec, "int4-g32") as package:
        runner = Runner(NativeEngine(), package, options=EngineOptions(threads=2))
        runner.run(prompt(spec, 256))
        large = runner.stages[0].usage()["buffer_bytes"]
        runner.feed({0: [5]})
        small = runner.stages[0].usage()["buffer_bytes"]
        runner.feed({0: [5, 6, 7]})
        runner.feed({0: [5]})
        assert large > 16 << 20
        assert small < 1 << 20
        assert runner.stages[0].usage()["buffer_bytes"] > small


def test_more_threads_than_work(plain: Package) -> None:
    ids = prompt(plain.spec, 5)
    expected = Runner(NativeEngine("float32"), plain, options=EngineOptions(threads=1)).run(ids)
    found = Runner(NativeEngine("float32"), plain, options=EngineOptions(threads=16)).run(ids)
    assert relative_difference(found, expected) < 1e-6


def test_too_many_threads_are_refused(plain: Package) -> None:
    with pytest.raises(EngineError, match="threads is 5000"):
        NativeEngine().load_head(plain, EngineOptions(threads=5000))


def test_truncated_file_is_refused(plain: Package) -> None:
    path = plain.path / "block_01.mnn.weight"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"block_01\.mnn\.weight.*bytes, expected"):
        NativeEngine().load_blocks(plain, range(3), EngineOptions())


def test_missing_file_is_refused(plain: Package) -> None:
    (plain.path / "head.mnn.weight").unlink()
    with pytest.raises(EngineError, match=r"head\.mnn\.weight.*cannot be opened"):
        NativeEngine().load_head(plain, EngineOptions())


def test_use_after_fork_is_refused(plain: Package) -> None:
    """A child of a fork has no threads: it is told so instead of waiting for ever."""
    code = (
        "import os, sys, numpy as np\n"
        "from pocketglm.package.reader import Package\n"
        "from pocketglm.engine.contract import EngineOptions\n"
        "from pocketglm.engine.native.engine import NativeEngine\n"
        "from pocketglm.errors import EngineError\n"
        "with Package.open(sys.argv[1]) as package:\n"
        "    head = NativeEngine().load_head(package, EngineOptions(threads=2))\n"
        "    row = np.ones((1, package.spec.hidden_size), np.float32)\n"
        "    head.logits(row)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            head.logits(row)\n"
        "        except EngineError as error:\n"
        "            again = NativeEngine().load_head(package, EngineOptions(threads=2))\n"
        "            os._exit(0 if 'fork' in str(error) and again.logits(row).any() else 2)\n"
        "        os._exit(1)\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    command = [sys.executable, "-c", code, str(plain.path)]
    subprocess.run(command, check=True, timeout=60, env=environment)


def batch_of(spec: ModelSpec, count: int) -> Batch:
    positions = np.arange(count, dtype=np.int32)[None].repeat(spec.position_axes, axis=0)
    return Batch((Segment(0, 0, positions),))
