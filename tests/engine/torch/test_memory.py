"""The formulas against the bytes of the tensors that there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.contract_suite import OpenPackage
from engine.runner import Runner
from pocketglm.engine.contract import EngineOptions, KVType
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.engine.torch.memory import block_bytes, cache_bytes, head_bytes

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


def test_sizes_need_no_torch() -> None:
    code = "import sys, pocketglm.engine.torch.memory; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
