"""Whole models through the kernels, beside the same engine in plain PyTorch."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.contract_suite import OpenPackage
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.spec import RotarySpec
from pocketglm.engine.contract import Batch, EngineOptions, Segment
from pocketglm.engine.torch import operations
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.errors import MissingExtraError
from pocketglm.package.reader import Package

SMOLLM2 = replace(
    SPECS["plain"],
    vocab_size=128,
    hidden_size=576,
    num_blocks=1,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    tied_head=True,
    rotary=RotarySpec("half", 64, 100000.0),
)
"""SmolLM2-135M's sizes, one block of it."""


def run(package: Package, device: torch.device, *, kernels: bool) -> np.ndarray:
    """Logits of a prompt of 8, of one token alone, and of two sequences' in one pass."""
    runner = Runner(TorchEngine(kernels=kernels), package, options=EngineOptions(backend=str(device)))
    ids = prompt(package.spec, 12)
    found = [runner.run(ids[:9], chunks=[8])]
    for stage in runner.stages:
        stage.open(1)
    runner.continue_as(0, 1, 8)
    found += runner.feed({0: ids[9:10], 1: ids[8:10]}).values()
    return np.concatenate(found)


def compare(package: Package, device: torch.device) -> None:
    found, expected = run(package, device, kernels=True), run(package, device, kernels=False)
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("spec_name", "format_name"),
    [("prefix_2d_alpha_layernorm_gelu", "int4-g32"), ("sandwich", "float16")],
)
def test_answers_as_plain_pytorch(
    device: torch.device, open_package: OpenPackage, spec_name: str, format_name: str
) -> None:
    compare(open_package(spec_name, format_name), device)


def test_runs_a_block_of_smollm2(device: torch.device, tmp_path: Path) -> None:
    """Three rows, then one: tiles and the matrix-vector kernel."""
    path = write_package(tmp_path / "package", SMOLLM2, random_tensors(SMOLLM2), FORMATS["int8-g64"])
    hidden = np.random.default_rng(0).normal(size=(4, SMOLLM2.hidden_size)).astype(np.float32)
    outputs = []
    with Package.open(path) as package:
        for kernels in (True, False):
            engine = TorchEngine(kv="int8", kernels=kernels)
            stage = engine.load_blocks(package, range(1), EngineOptions(backend=str(device)))
            stage.open(0)
            outputs.append(
                [stage.forward(hidden[:3], segment(0, 3)), stage.forward(hidden[3:], segment(3, 1))]
            )
    for found, expected in zip(*outputs, strict=True):
        assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()


def segment(start: int, count: int) -> Batch:
    return Batch((Segment(0, start, np.arange(start, start + count, dtype=np.int32)[None]),))


def test_plain_pytorch_is_the_choice_on_a_cpu(open_package: OpenPackage) -> None:
    assert not operations.choose_operations(torch.device("cpu"), None).kernels


def test_kernels_without_triton_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not operations.choose_operations(torch.device("cpu"), None).kernels
    with pytest.raises(MissingExtraError, match="Triton cannot be imported") as error:
        operations.choose_operations(torch.device("cpu"), True)
    assert "pocketglm[torch]" in str(error.value.hint)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_the_choice_needs_tensor_cores(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(operations, "kernels_run", lambda device: True)
    assert operations.choose_operations(torch.device("cuda"), None).kernels == expected


def test_kernels_that_fail_give_way_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from pocketglm.engine.torch.kernels import linear

    def no_compiler(*arguments: object, **settings: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(linear, "half_rows", no_compiler)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    operations.kernels_run.cache_clear()
    with pytest.warns(UserWarning, match="plain PyTorch is used on cuda: Triton fails"):
        assert not operations.choose_operations(torch.device("cuda"), None).kernels
    operations.kernels_run.cache_clear()


def test_kernels_that_run_are_found_out(device: torch.device) -> None:
    assert operations.kernels_run(device)
