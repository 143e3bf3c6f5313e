"""The engine taken out of the signed APK, under emulation: x86's tokens on every CPU, and Android's rules."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from android.apk import BUILD_TIMEOUT, command
from android.system_calls import ALLOWED
from engine.checkpoints import convert_float32
from engine.contract_specs import FORMATS, SPECS, prompt
from engine.tiny_packages import random_tensors, write_package
from executable.engine_process import EngineProcess

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)

KERNELS = {"max": "neon_i8mm", "cortex-a76": "neon_dotprod", "cortex-a53": "neon"}
"""Emulated CPU -> the best kernels it has. The last two of these phones would die of the first's."""
SPEC = "prefix_2d_alpha_layernorm_gelu"


@pytest.fixture(scope="module")
def int4_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ChatGLM-6B's kind of model, small, in int4."""
    folder = tmp_path_factory.mktemp("package") / "p"
    return write_package(folder, SPECS[SPEC], random_tensors(SPECS[SPEC]), FORMATS["int4-g32"])


@pytest.fixture(scope="module")
def smollm2_package(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pocketglm.convert import ConvertSettings, convert
    from pocketglm.quantize.formats import WeightFormat
    from pocketglm.quantize.settings import QuantizeSettings

    settings = ConvertSettings(report=False, quantize=QuantizeSettings(block=WeightFormat(4, 32)))
    return convert(smollm2, tmp_path_factory.mktemp("package") / "smollm2", settings)


@pytest.fixture(params=KERNELS)
def phone(request: pytest.FixtureRequest, phone_engine: Path) -> Iterator[EngineProcess]:
    with EngineProcess(["qemu-aarch64", "-cpu", request.param, str(phone_engine)]) as engine:
        assert engine.ready["isa"][0] == KERNELS[request.param]
        yield engine


@pytest.mark.parametrize("name", ["chatglm-v1-tiny", "chatglm2-tiny"])
def test_golden_models(phone: EngineProcess, golden: Path, tmp_path: Path, name: str) -> None:
    expected = np.load(golden / name / "golden.npz")
    prompt_ids, greedy_ids = expected["prompt_ids"].tolist(), expected["greedy_ids"].tolist()
    phone.load(convert_float32(golden / name, tmp_path / "p"), kv="float32", threads=2)
    assert phone.generate(prompt_ids, max_tokens=len(greedy_ids))[0] == greedy_ids


def test_smollm2_answers_as_here(phone: EngineProcess, smollm2_package: Path) -> None:
    """A real model in int4: all the tokens of a greedy answer."""
    ids = [504, 3575, 282, 4649, 314]  # "The capital of France is"
    with EngineProcess() as here:
        for engine in (phone, here):
            engine.load(smollm2_package, threads=2)
        expected = here.generate(ids, max_tokens=8, end_tokens=[2])[0]
    assert len(expected) == 8
    assert phone.generate(ids, max_tokens=8, end_tokens=[2])[0] == expected


@pytest.mark.parametrize("kv", ["float16", "int8"])
def test_quantized_caches_and_seeds(phone: EngineProcess, int4_package: Path, kv: str) -> None:
    ids = prompt(SPECS[SPEC], 30)
    with EngineProcess() as here:
        for engine in (phone, here):
            engine.load(int4_package, kv=kv, threads=2)
        expected = here.generate(ids, max_tokens=20, temperature=0.8, seed=11)[0]
    found = phone.generate(ids, max_tokens=20, temperature=0.8, seed=11)[0]
    # Sums in another order may decide near ties, not the beginning
    assert found == expected or found[:8] == expected[:8]


def test_only_system_calls_that_android_allows(phone_engine: Path, tmp_path: Path) -> None:
    """A whole life of the engine: load, stream from disk, prefill, decode, sample, errors, the end."""
    spec = replace(SPECS["plain"], hidden_size=256, intermediate_size=1024, num_blocks=12)
    package = write_package(tmp_path / "p", spec, random_tensors(spec), FORMATS["int8-g64"])
    head = (package / "head.mnn.weight").stat().st_size
    load = {"command": "load", "package": str(package), "threads": 3}
    answer = {"command": "generate", "tokens": prompt(spec, 20), "max_tokens": 5, "temperature": 0.9}
    requests = [
        load,
        answer,
        {**load, "memory": (16 << 20) + head + (12 << 20), "kv": "int8"},
        answer,
        {"command": "stats"},
        {"command": "load", "package": "/nowhere"},
        {"command": "unload"},
        load,
    ]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    emulator = [command("qemu-aarch64"), "-strace", str(phone_engine)]
    done = subprocess.run(emulator, input=lines, capture_output=True, text=True, timeout=120, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "token"] == [
        "ready", "loaded", "done", "loaded", "done", "stats", "error", "unloaded", "loaded",
    ]  # fmt: skip
    assert [event["streamed_bytes"] > 0 for event in events if event["event"] == "loaded"] == [
        False,
        True,
        False,
    ]
    calls = set(re.findall(r"(?:^|\n)\d+ ([a-z_0-9]+)\(", done.stderr))
    assert {"mmap", "futex", "clone", "openat"} <= calls
    assert not calls - ALLOWED


def test_the_filter_would_find_glibc(tmp_path: Path) -> None:
    """The list is good for something: a static program of Debian's compiler makes other calls."""
    compiler, emulator = command("aarch64-linux-gnu-g++"), command("qemu-aarch64")
    (tmp_path / "program.cpp").write_text("int main() {}")
    program = str(tmp_path / "program")
    subprocess.run([compiler, "-static", str(tmp_path / "program.cpp"), "-o", program], check=True)
    done = subprocess.run([emulator, "-strace", program], capture_output=True, text=True, check=True)
    calls = set(re.findall(r"(?:^|\n)\d+ ([a-z_0-9]+)\(", done.stderr))
    assert {"set_robust_list", "rseq"} & (calls - ALLOWED)


def test_the_program(phone_engine: Path) -> None:
    """Static; at any address; and every part that is mapped begins where newer phones' pages of 16 KiB do."""
    done = subprocess.run(
        [command("readelf"), "-hlW", str(phone_engine)], capture_output=True, text=True, check=True
    )
    loads = re.findall(r"^\s+LOAD\s.*\s(0x[0-9a-f]+)$", done.stdout, re.MULTILINE)
    assert loads
    assert {int(alignment, 16) for alignment in loads} == {0x10000}
    assert "INTERP" not in done.stdout
    assert re.search(r"Type:\s+DYN", done.stdout)
    # No stack that could be run
    assert re.search(r"GNU_STACK\s.*\sRW\s", done.stdout)
