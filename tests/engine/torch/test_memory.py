"""The formulas against the bytes of the tensors that there are."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import pocketglm.engine.torch.engine as torch_engine
from engine.contract_specs import FORMATS, SPECS, prompt
from engine.contract_suite import OpenPackage
from engine.runner import Runner
from pocketglm.engine.contract import EngineOptions, KVType
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.engine.torch.memory import block_bytes, cache_bytes, head_bytes
from pocketglm.errors import DeviceMemoryError

CPU = EngineOptions(backend="cpu")


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("spec_name", ["plain", "linear_scaling_all_biases", "llama3_scaling_odd_sizes"])
def test_weights_take_what_is_said(open_package: OpenPackage, spec_name: str, format_name: str) -> None:
    package = open_package(spec_name, format_name)
    for index in range(3):
        stage = TorchEngine().load_blocks(package, range(index, index + 1), CPU)
        assert stage.weight_bytes() == block_bytes(package, index)
    assert TorchEngine().load_head(package, CPU).weight_bytes() == head_bytes(package)


@pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
@pytest.mark.parametrize("spec_name", SPECS)
def test_caches_take_what_is_said(open_package: OpenPackage, spec_name: str, kv: KVType) -> None:
    package = open_package(spec_name)
    runner = Runner(TorchEngine(), package, splits=(1,), options=EngineOptions(backend="cpu", kv=kv))
    for sequence, length in ((0, 24), (1, 64), (2, 65)):
        runner.run(prompt(package.spec, length), sequence)
    for stage, blocks in zip(runner.stages, (1, 2), strict=True):
        expected = sum(cache_bytes(package.spec, blocks, length, kv) for length in (24, 64, 65))
        assert stage.cache_bytes() == expected


def test_a_limit_counts_weights_caches_and_what_others_took(open_package: OpenPackage) -> None:
    package, engine = open_package("plain"), TorchEngine()
    options = EngineOptions(backend="cpu", context=100, gpu_memory_taken=1000)
    need = engine.memory_need(package, range(2), options)
    weights = sum(block_bytes(package, index) for index in range(2))
    assert need == weights + cache_bytes(package.spec, 2, 100, "float16")
    engine.load_blocks(package, range(2), replace(options, gpu_memory_bytes=need + 1000)).release()
    with pytest.raises(DeviceMemoryError, match="are needed on cpu"):
        engine.load_blocks(package, range(2), replace(options, gpu_memory_bytes=need + 999))
    head = engine.memory_need(package, None, options)
    engine.load_head(package, replace(options, gpu_memory_bytes=head + 1000)).release()
    with pytest.raises(DeviceMemoryError, match="are needed on cpu"):
        engine.load_head(package, replace(options, gpu_memory_bytes=head + 999))


def test_what_is_free_on_a_cuda_device_counts(
    open_package: OpenPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known before anything is read. The CUDA device is stood in for."""
    package, engine = open_package("plain"), TorchEngine()
    need, device = engine.memory_need(package, range(2), EngineOptions()), torch.device("cuda")
    free = need - 1
    monkeypatch.setattr(torch_engine, "choose_device", lambda options, parts: device)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 8 << 30))
    with pytest.raises(DeviceMemoryError, match="are needed on cuda, 0 MiB are free"):
        engine.load_blocks(package, range(2), EngineOptions())
    free = need
    torch_engine._check_device_memory(package, need, device, EngineOptions())


def test_sizes_need_no_torch() -> None:
    code = "import sys, pocketglm.engine.torch.memory; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
