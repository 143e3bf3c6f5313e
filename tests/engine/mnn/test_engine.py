"""What the MNN engine refuses, and what sets it apart from others; the rest is the contract suite."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketglm
from engine.contract_specs import FORMATS, SPECS, prompt
from engine.contract_suite import relative_error
from engine.mnn.graphs import add_graphs
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch, Engine, EngineOptions, Segment
from pocketglm.engine.registry import get_engine
from pocketglm.errors import EngineError, IntegrityError, PackageError
from pocketglm.package.manifest import MANIFEST_FILE
from pocketglm.package.reader import Package
from pocketglm.package.writer import hash_file
from pocketglm.quantize.formats import WeightFormat


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with graphs; tests that change it copy it."""
    path = tmp_path_factory.mktemp("mnn") / "plain"
    write_package(path, SPECS["plain"], random_tensors(SPECS["plain"]), FORMATS["int8-g64"])
    add_graphs(path)
    return path


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "copy"))


@pytest.fixture
def engine() -> Engine:
    return get_engine("mnn")


def load(path: Path, **options: Any) -> None:
    """Load all blocks and the head, and let them go."""
    with Package.open(path) as package:
        Runner(get_engine("mnn"), package, options=EngineOptions(**options)).release()


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / MANIFEST_FILE
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")


def listed_again(path: Path, name: str) -> None:
    """List a changed file under its new size and hash."""
    entry = {"size": (path / name).stat().st_size, "sha256": hash_file(path / name)}
    change_manifest(path, lambda data: data["files"].update({name: entry}))


# Graphs


def test_package_without_graphs_says_how_to_make_them(tmp_path: Path) -> None:
    pytest.importorskip("MNN")
    path = write_package(
        tmp_path / "bare", SPECS["plain"], random_tensors(SPECS["plain"]), FORMATS["float32"]
    )
    with pytest.raises(EngineError, match="no MNN graphs") as error:
        load(path)
    assert f"pocketglm export {path} --format mnn" in str(error.value.hint)


def test_one_missing_graph_is_named(copied: Path) -> None:
    change_manifest(copied, lambda data: data["files"].pop("block_01.mnn"))
    with pytest.raises(EngineError, match=r"lacks the graph block_01\.mnn"):
        load(copied)


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        ({"interface": 99}, "interface 99"),
        ({"mnn_version": "3.99.0"}, r"made with MNN 3\.99\.0"),
        ({"mnn_version": "2.8.1"}, r"made with MNN 2\.8\.1"),
        ({"mnn_version": "latest"}, "made with MNN latest"),
    ],
)
def test_graphs_of_another_version_are_refused(copied: Path, stamp: dict[str, Any], message: str) -> None:
    change_manifest(copied, lambda data: data["graphs"]["mnn"].update(stamp))
    with pytest.raises(EngineError, match=message) as error:
        load(copied)
    assert "pocketglm export" in str(error.value.hint)


def test_graphs_of_an_older_mnn_run(copied: Path) -> None:
    change_manifest(copied, lambda data: data["graphs"]["mnn"].update(mnn_version="3.5.0"))
    load(copied)


def test_changed_graph_is_refused_before_mnn_sees_it(copied: Path) -> None:
    graph = copied / "block_02.mnn"
    data = bytearray(graph.read_bytes())
    data[100] ^= 1
    graph.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"block_02\.mnn.*SHA-256"):
        load(copied)


def test_file_that_is_no_graph_is_an_error(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (copied / "block_00.mnn").write_bytes(b"not a graph" * 100)
    listed_again(copied, "block_00.mnn")
    with pytest.raises(EngineError, match=r"block_00\.mnn: MNN cannot load the graph"):
        load(copied)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("change", [Path.unlink, lambda path: os.truncate(path, 1000)], ids=["gone", "short"])
def test_weight_file_that_vanished_is_refused(
    copied: Path, engine: Engine, change: Callable[[Path], object]
) -> None:
    """MNN would compute with uninitialised memory."""
    with Package.open(copied) as package:
        change(copied / "block_01.mnn.weight")
        with pytest.raises(PackageError, match=r"block_01\.mnn\.weight"):
            engine.load_blocks(package, range(3), EngineOptions())


# Options


def test_missing_backend_is_an_error_at_load(plain: Path, engine: Engine) -> None:
    available = engine.capabilities().devices
    missing = next(name for name in ("metal", "cuda", "opencl", "vulkan") if name not in available)
    for backend in (missing, {1: missing}, {"head": missing}):
        with pytest.raises(EngineError, match=f"no {missing} backend"):
            load(plain, backend=backend)


def test_backends_are_named_for_all_or_for_single_blocks(plain: Path) -> None:
    for backend in ("cpu", {0: "cpu", "head": "cpu"}, {}):
        load(plain, backend=backend)


def test_unknown_backends_and_parts_are_refused(plain: Path) -> None:
    with pytest.raises(EngineError, match="no backend called 'abacus'") as error:
        load(plain, backend="abacus")
    assert "cpu" in str(error.value.hint)
    with pytest.raises(EngineError, match="named for 3"):
        load(plain, backend={3: "cpu"})


def test_memory_limit_is_kept(plain: Path) -> None:
    large = _package(plain.parent / "large", replace(SPECS["plain"], vocab_size=20000))
    with pytest.raises(EngineError, match="1 MiB are allowed") as error:
        load(large, memory_bytes=1 << 20)
    assert error.value.hint is not None
    load(plain, memory_bytes=64 << 20)


# Arithmetic


@pytest.fixture(scope="module")
def spec_packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[ModelSpec], Package]]:
    opened: list[Package] = []

    def get(spec: ModelSpec, weight_format: WeightFormat = FORMATS["float32"]) -> Package:
        folder = tmp_path_factory.mktemp("spec")
        opened.append(Package.open(_package(folder / "package", spec, weight_format)))
        return opened[-1]

    yield get
    for package in opened:
        package.close()


def _package(path: Path, spec: ModelSpec, weight_format: WeightFormat = FORMATS["float32"]) -> Path:
    write_package(path, spec, random_tensors(spec), weight_format)
    add_graphs(path)
    return path


def errors_against_reference(package: Package, ids: list[int], chunks: tuple[int, ...] = ()) -> float:
    expected = Runner(get_engine("reference"), package).run(ids)
    return relative_error(Runner(get_engine("mnn"), package).run(ids, chunks=chunks), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_eps": 1.5625e-07},  # six decimals, as in MNN's JSON, make it 0
        {"residual": "normed_alpha", "residual_alpha": 7.483314773547883},
        {"norm": "layernorm", "norm_eps": 3.3e-06},
        {"vocab_size": 70000, "num_blocks": 1},  # the header's sizes are int32
    ],
    ids=lambda changes: ",".join(changes),
)
def test_settings_reach_the_graph_exactly(
    spec_packages: Callable[..., Package], changes: dict[str, Any]
) -> None:
    package = spec_packages(replace(SPECS["plain"], **changes))
    assert errors_against_reference(package, prompt(package.spec, 16)) < 1e-5


def test_wide_head_is_quantized_too(spec_packages: Callable[..., Package]) -> None:
    spec = replace(SPECS["plain"], vocab_size=70000, num_blocks=1)
    package = spec_packages(spec, FORMATS["int8-g64"])
    assert errors_against_reference(package, prompt(spec, 8)) < 3e-2


@pytest.mark.parametrize("spec_name", ["prefix_2d_alpha_layernorm_gelu", "sliding_window"])
def test_long_segments_are_computed_in_pieces(spec_packages: Callable[..., Package], spec_name: str) -> None:
    spec = replace(SPECS[spec_name], max_context=2048)
    ids = prompt(spec, 700)
    assert errors_against_reference(spec_packages(spec), ids) < 1e-5


def test_prefix_longer_than_a_piece(spec_packages: Callable[..., Package]) -> None:
    spec = replace(SPECS["prefix_2d_alpha_layernorm_gelu"], max_context=2048)
    special = spec.prefix_tokens
    assert special is not None
    ids = [7 * i % 40 for i in range(700)]
    ids[400:402] = [special.gmask, special.sop]
    assert errors_against_reference(spec_packages(spec), ids, chunks=(500,)) < 1e-5


def test_overflow_does_not_outlive_truncation(spec_packages: Callable[..., Package]) -> None:
    """Rows that were forgotten are multiplied by 0 until they are overwritten: no infinity may stay."""
    package = spec_packages(SPECS["plain"])
    runner = Runner(get_engine("mnn"), package)
    ids = prompt(package.spec, 12)
    whole = runner.run(ids)
    runner.truncate(0, 6)
    poison = np.full((2, package.spec.hidden_size), np.inf, np.float32)
    positions = np.arange(6, 8, dtype=np.int32)[None]
    runner.stages[0].forward(poison, Batch((Segment(0, 6, positions),)))
    runner.stages[0].truncate(0, 6)
    assert relative_error(runner.feed({0: ids[6:]})[0], whole[6:]) < 1e-5


def test_threads_may_share_a_model(plain: Path) -> None:
    """Loaded in one thread, used in others: MNN keeps some of its state by thread."""
    with pocketglm.load(plain, engine="mnn", threads=2) as model, ThreadPoolExecutor(3) as pool:
        expected = list(model.generate([1, 2, 3], max_new_tokens=20))
        answers = [pool.submit(lambda: list(model.generate([1, 2, 3], max_new_tokens=20))) for _ in range(6)]
        assert all(answer.result() == expected for answer in answers)
