from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.contract_suite import OpenPackage
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm import load
from pocketglm.engine.contract import EngineOptions, KVType
from pocketglm.engine.registry import get_engine
from pocketglm.engine.torch import weights as weights_module
from pocketglm.engine.torch.cache import CacheLayout, Page
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.errors import DeviceMemoryError, IntegrityError
from pocketglm.package.reader import Package

CPU = EngineOptions(backend="cpu")


@pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
def test_takes_the_kv_type_that_is_asked_for(open_package: OpenPackage, kv: KVType) -> None:
    runner = Runner(TorchEngine(), open_package("plain"), options=EngineOptions(backend="cpu", kv=kv))
    ids = prompt(runner.package.spec, 80)
    found = runner.run(ids)
    expected = Runner(get_engine("reference"), runner.package).run(ids)
    limit = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}[kv]
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()
    size = {"float32": 4, "float16": 2, "int8": 1.25}[kv]
    assert runner.stages[0].cache_bytes() == 2 * 3 * 4 * 16 * 128 * size


def test_load_that_fails_frees_what_it_had(
    open_package: OpenPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[object]] = []
    original = weights_module.load_weights

    def fail_at_third(package: Package, name: str, device: torch.device) -> object:
        if len(loaded) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        weights = original(package, name, device)
        loaded.append(weakref.ref(weights))
        return weights

    monkeypatch.setattr(weights_module, "load_weights", fail_at_third)
    with pytest.raises(DeviceMemoryError, match="blocks 0 to 2 on cpu") as error:
        TorchEngine().load_blocks(open_package("plain"), range(3), CPU)
    assert error.value.__cause__ is not None  # the error lives, and holds no tensor
    assert [reference() for reference in loaded] == [None, None]


def test_cache_that_cannot_grow_leaves_all_sequences(
    open_package: OpenPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(TorchEngine("float32"), open_package("plain"), options=CPU)
    ids = prompt(runner.package.spec, 70)
    whole = runner.run(ids)
    for sequence in (1, 2):
        runner.open(sequence)
        runner.feed({sequence: ids[:60]})
    stage = runner.stages[0]
    before = stage.cache_bytes()
    original, made = CacheLayout.new_page, []

    def one_more(self: CacheLayout) -> Page:
        made.append(self)
        if len(made) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(CacheLayout, "new_page", one_more)
        with pytest.raises(DeviceMemoryError, match="KV cache of 70 positions"):
            runner.feed({1: ids[60:], 2: ids[60:]})
    assert len(made) == 2
    assert (stage.length(1), stage.length(2), stage.cache_bytes()) == (60, 60, before)
    for sequence in (1, 2):
        runner.trackers[sequence].truncate(60)
        np.testing.assert_allclose(runner.feed({sequence: ids[60:]})[sequence], whole[60:], atol=1e-4)


def test_pass_that_fails_leaves_the_caches(
    open_package: OpenPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketglm.engine.torch import plain

    runner = Runner(TorchEngine("float32"), open_package("plain"), options=CPU)
    ids = prompt(runner.package.spec, 130)
    whole = runner.run(ids)
    runner.open(1)
    runner.feed({1: ids[:50]})
    before = runner.stages[0].cache_bytes()
    calls, original = [], plain.activation

    def fail_in_second_block(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(plain, "activation", fail_in_second_block)
        with pytest.raises(DeviceMemoryError, match="a pass of 80 rows"):
            runner.feed({1: ids[50:]})
    assert (runner.stages[0].length(1), runner.stages[0].cache_bytes()) == (50, before)
    runner.trackers[1].truncate(50)
    np.testing.assert_allclose(runner.feed({1: ids[50:]})[1], whole[50:], atol=1e-4)


def test_too_little_memory_is_said_before_loading(open_package: OpenPackage) -> None:
    options = EngineOptions(backend="cpu", memory_bytes=1 << 20, memory_taken=1 << 20)
    for load_part in (
        lambda: TorchEngine().load_blocks(open_package("plain"), range(3), options),
        lambda: TorchEngine().load_head(open_package("plain"), options),
    ):
        with pytest.raises(DeviceMemoryError, match="0 MiB are allowed"):
            load_part()


def test_a_file_cut_short_after_opening_is_noticed(tmp_path: Path) -> None:
    spec = SPECS["plain"]
    path = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS["int8-g64"])
    with Package.open(path) as package:
        file = path / "block_01.mnn.weight"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(IntegrityError, match=r"block_01.*ends before byte"):
            TorchEngine().load_blocks(package, range(3), CPU)


def test_files_pass_through_a_small_buffer(
    open_package: OpenPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device that is not the host's: in pieces, the last one shorter."""
    package = open_package("plain", "int4-g32")
    monkeypatch.setattr(weights_module, "COPY_BYTES", 1000)
    loaded = weights_module.load_weights(package, "block_00.mnn.weight", torch.device("cpu"))
    data = (package.path / "block_00.mnn.weight").read_bytes()
    assert loaded.tensors[0].numpy().tobytes() == data


def test_answers_like_the_native_engine_through_the_public_interface(tmp_path: Path) -> None:
    spec = SPECS["prefix_2d_alpha_layernorm_gelu"]
    path = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS["int8-g64"])
    ids = prompt(spec, 20)
    chosen = []
    for engine in ("torch", "reference"):
        with load(path, engine=engine) as model:
            chosen.append(list(model.generate(ids, max_new_tokens=12, temperature=0.0)))
    assert chosen[0] == chosen[1]
