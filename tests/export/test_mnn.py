"""`export --format mnn`: what is added to a package, and that nothing else changes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.contract_suite import relative_error
from engine.mnn.graphs import need_mnn
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.registry import get_engine
from pocketglm.errors import InputError, MissingExtraError, PackageError
from pocketglm.export import package_files
from pocketglm.export.mnn import export_graphs, make_graphs
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import plan_block, plan_head
from pocketglm.package.manifest import MANIFEST_FILE, Manifest
from pocketglm.package.reader import Package, read_manifest
from pocketglm.package.verify import verify_package
from pocketglm.quantize.formats import WeightFormat

SPEC = SPECS["plain"]
GRAPHS = ["block_00.mnn", "block_01.mnn", "block_02.mnn", "head.mnn"]


@pytest.fixture(autouse=True)
def _needs_mnn() -> None:
    need_mnn()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package", SPEC, random_tensors(SPEC), FORMATS["int4-g32"])


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


# What is written


def test_graphs_are_added_in_place(package: Path) -> None:
    before = contents(package)
    assert export_graphs(package) == package
    after = contents(package)
    assert sorted(set(after) - set(before)) == GRAPHS
    assert {n: d for n, d in after.items() if n in before and n != MANIFEST_FILE} == {
        n: d for n, d in before.items() if n != MANIFEST_FILE
    }
    manifest = read_manifest(package)
    assert set(GRAPHS) <= set(manifest.files)
    assert manifest.graphs == {"mnn": {"mnn_version": "3.6.1", "interface": 1}}
    assert json.loads(before[MANIFEST_FILE])["weights"] == json.loads(after[MANIFEST_FILE])["weights"]
    verify_package(package)


def test_output_directory_shares_the_weights(package: Path, tmp_path: Path) -> None:
    before = contents(package)
    target = export_graphs(package, tmp_path / "with-graphs")
    assert contents(package) == before
    assert os.path.samefile(package / "head.mnn.weight", target / "head.mnn.weight")
    assert not os.path.samefile(package / MANIFEST_FILE, target / MANIFEST_FILE)
    assert set(contents(target)) == set(before) | set(GRAPHS)
    assert not list(tmp_path.glob("*.partial"))
    verify_package(target)


def test_output_may_be_the_package_itself(package: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(package)
    export_graphs(package, tmp_path / "link")
    assert set(GRAPHS) <= set(contents(package))


def test_files_are_copied_where_links_are_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    target = export_graphs(package, tmp_path / "copy")
    assert not os.path.samefile(package / "head.mnn.weight", target / "head.mnn.weight")
    verify_package(target)


def test_second_export_gives_the_same_bytes(package: Path) -> None:
    export_graphs(package)
    first = contents(package)
    export_graphs(package)
    assert contents(package) == first


def test_progress_counts_graphs(package: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    export_graphs(package, progress=lambda *step: seen.append(step))
    assert seen == [(name, index, 4) for index, name in enumerate(GRAPHS)]


# One graph for each layout


def manifest_of(spec: ModelSpec, formats: dict[int, WeightFormat]) -> Manifest:
    """A manifest without files; block i has formats[i], the others and the head int4."""
    common = WeightFormat(4, 32)
    layouts = [
        plan_block(spec, i, lambda name, shape, i=i: formats.get(i, common)) for i in range(spec.num_blocks)
    ]
    layouts.append(plan_head(spec, lambda name, shape: common))
    return Manifest(spec, "bfloat16", {}, {layout.file: layout.entries for layout in layouts})


def test_blocks_of_one_layout_share_a_graph() -> None:
    graphs = dict(make_graphs(manifest_of(SPEC, {1: WeightFormat(8, 0)})))
    assert graphs["block_00.mnn"] == graphs["block_02.mnn"] != graphs["block_01.mnn"]


def test_windows_need_no_other_graph() -> None:
    graphs = dict(make_graphs(manifest_of(SPECS["sliding_window"], {})))
    assert graphs["block_00.mnn"] == graphs["block_02.mnn"]


def test_full_size_needs_no_weights() -> None:
    """A block of 70 billion parameters: nothing of its size is ever allocated."""
    large = replace(
        SPEC, hidden_size=65536, intermediate_size=262144, num_heads=512, num_kv_heads=512, head_dim=128
    )
    large = replace(large, rotary=replace(large.rotary, dimensions=128), vocab_size=200000)
    graphs = dict(make_graphs(manifest_of(large, {})))
    assert max(map(len, graphs.values())) < 1 << 20


def test_mixed_formats_run(tmp_path: Path) -> None:
    """Every linear layer in a format of its own, and inputs that are padded."""
    spec = SPECS["llama3_scaling_odd_sizes"]
    path = tmp_path / "mixed"
    write_mixed(path, spec)
    export_graphs(path)
    with Package.open(path) as package:
        ids = prompt(spec, 20)
        expected = Runner(get_engine("reference"), package).run(ids)
        assert relative_error(Runner(get_engine("mnn"), package).run(ids), expected) < 3e-2


def write_mixed(path: Path, spec: ModelSpec) -> None:
    """A package with formats by layer, made of the files of packages with one format each."""
    from engine import tiny_packages

    by_layer = {"qkv": 32, "output": 16, "gate_up": 8, "down": 4, "head": 16}
    common = tiny_packages.plan_block
    head = tiny_packages.plan_head

    def format_of(name: str, shape: tuple[int, int]) -> WeightFormat:
        return WeightFormat(by_layer[name.rsplit(".", 1)[-1]])  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_packages, "plan_block", lambda spec, i, _: common(spec, i, format_of))
        patch.setattr(tiny_packages, "plan_head", lambda spec, _: head(spec, format_of))
        write_package(path, spec, random_tensors(spec), WeightFormat(32))


# Refusals and interruptions


def test_existing_output_is_refused(package: Path, tmp_path: Path) -> None:
    for name, message in (("there", "exists already"), ("new.partial", "in the way")):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=message):
            export_graphs(package, tmp_path / name.removesuffix(".partial"))
    assert GRAPHS[0] not in contents(package)


def failing_write(after: int) -> Any:
    """`write_small_file` that fails after some files, as on a full disk."""
    written = 0
    original = package_files.write_small_file

    def write(path: Path, data: bytes) -> Any:
        nonlocal written
        written += 1
        if written > after:
            raise OSError("no space left")
        return original(path, data)

    return write


@pytest.mark.parametrize("exported_before", [False, True])
@pytest.mark.parametrize("after", range(5))
def test_interrupted_export_leaves_a_sound_package(
    package: Path, monkeypatch: pytest.MonkeyPatch, exported_before: bool, after: int
) -> None:
    if exported_before:
        export_graphs(package)
        # Other graphs than those that will be written, as from another version
        data = (package / GRAPHS[0]).read_bytes() + b"older"
        package_files.add_graphs(package, "mnn", dict.fromkeys(GRAPHS, data), {"interface": 0})
    with monkeypatch.context() as patch:
        patch.setattr(package_files, "write_small_file", failing_write(after))
        with pytest.raises(OSError, match="no space"):
            export_graphs(package)
    verify_package(package)
    export_graphs(package)
    verify_package(package)
    assert set(GRAPHS) <= set(read_manifest(package).files)


def test_interrupted_export_leaves_no_output(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_files, "write_small_file", failing_write(2))
    with pytest.raises(OSError, match="no space"):
        export_graphs(package, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package"]


def test_norm_bias_must_follow_its_weight() -> None:
    manifest = manifest_of(SPECS["linear_scaling_all_biases"], {})
    moved = tuple(
        replace(entry, offset=entry.offset + 64)
        if entry.name == "norm.bias" or isinstance(entry, LinearEntry)
        else entry
        for entry in manifest.weights["head.mnn.weight"]
    )
    broken = replace(manifest, weights={**manifest.weights, "head.mnn.weight": moved})
    with pytest.raises(PackageError, match=r"norm\.bias is at 320"):
        dict(make_graphs(broken))


@pytest.mark.parametrize("module", ["torch", "onnx", "MNN", "_tools"])
def test_missing_extra_says_what_to_install(
    package: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    import sys

    from pocketglm.engine.mnn import runtime
    from pocketglm.export import mnn_converter

    for cached in (runtime.mnn, mnn_converter._tools):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=module) as error:
        export_graphs(package)
    assert "pocketglm[mnn]" in str(error.value.hint)
    assert GRAPHS[0] not in contents(package)
