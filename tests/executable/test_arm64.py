"""The executable for arm64 under emulation: x86's tokens on every CPU, through the decoder's NEON code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoints import convert_float32
from engine.contract_specs import FORMATS, SPECS, prompt
from engine.tiny_packages import random_tensors, write_package
from executable.arm64_build import build_for_arm64
from executable.engine_process import EngineProcess

KERNELS = {"max": "neon_i8mm", "cortex-a76": "neon_dotprod", "cortex-a53": "neon"}
"""Emulated CPU -> the best kernels it has."""


@pytest.fixture(scope="module")
def program() -> Path:
    return build_for_arm64()


@pytest.fixture(params=KERNELS)
def arm(request: pytest.FixtureRequest, program: Path) -> EngineProcess:
    engine = EngineProcess(["qemu-aarch64", "-cpu", request.param, str(program)])
    assert engine.ready["isa"][0] == KERNELS[request.param]
    return engine


@pytest.mark.parametrize("name", ["chatglm-v1-tiny", "chatglm2-tiny"])
def test_golden_models(arm: EngineProcess, golden: Path, tmp_path: Path, name: str) -> None:
    expected = np.load(golden / name / "golden.npz")
    prompt_ids, greedy_ids = expected["prompt_ids"].tolist(), expected["greedy_ids"].tolist()
    package = convert_float32(golden / name, tmp_path / "p")
    with arm:
        arm.load(package, kv="float32", threads=2)
        assert arm.generate(prompt_ids, max_tokens=len(greedy_ids))[0] == greedy_ids


def test_stories260k(arm: EngineProcess, shared_data: Path, tmp_path: Path) -> None:
    ids = json.loads((shared_data / "stories260k" / "greedy_ids.json").read_text())
    package = convert_float32(shared_data / "stories260k", tmp_path / "p")
    with arm:
        arm.load(package, kv="float32", threads=2)
        assert arm.generate(ids[:1], max_tokens=len(ids) - 1)[0] == ids[1:]


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_seeded_tokens_as_here(arm: EngineProcess, tmp_path: Path, spec: str) -> None:
    """Quantized weights and caches; sums in another order may only decide near ties."""
    package = write_package(tmp_path / "p", SPECS[spec], random_tensors(SPECS[spec]), FORMATS["int4-g32"])
    ids = prompt(SPECS[spec], 30)
    settings = {"max_tokens": 30, "temperature": 0.8, "seed": 11}
    with arm, EngineProcess() as here:
        for kv in ("float16", "int8"):
            for engine in (arm, here):
                engine.load(package, kv=kv, threads=2)
            found, expected = (engine.generate(ids, **settings)[0] for engine in (arm, here))
            same = sum(one == other for one, other in zip(found, expected, strict=True))
            assert found == expected or same >= 10, (kv, found, expected)
