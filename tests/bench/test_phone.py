"""The phone's figures: the benchmark runs the engine and gives whole reports. Their sizes are looked at only
where they must hold on any machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import convert_float32
from executable.arm64_build import build_for_arm64
from executable.engine_process import BUILT

ROOT = Path(__file__).parents[2]


def run_phone(*arguments: object) -> dict[str, Any]:
    line = [sys.executable, str(ROOT / "bench" / "phone.py"), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def package(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_float32(golden / "chatglm-v1-tiny", tmp_path_factory.mktemp("phone") / "tiny")


@pytest.mark.skipif(not BUILT.is_file(), reason="pocketglm-engine is not built; `make engine` builds it")
def test_memory(package: Path) -> None:
    report = run_phone("memory", package, "--context", 48, "--memory", "64MiB", "--threads", 2)
    free, limited = report["runs"]
    for run in (free, limited):
        assert run["prompt_tokens"] == 40
        assert run["cache_bytes"] > 0
        assert 0 < run["peak_private_bytes"] < run["peak_resident_bytes"]
    assert (free["limit_bytes"], limited["limit_bytes"]) == (None, 64 << 20)


def test_instructions(package: Path) -> None:
    found = run_phone(
        "instructions", package, "--engine", build_for_arm64(), "--cpus", "cortex-a76,cortex-a53"
    )
    weights = found["bytes_per_token"] / 4  # float32
    for cpu in ("cortex-a76", "cortex-a53"):
        # 4 weights a vector; everything beside the matrices is small but in tiny models not nothing.
        assert weights / 4 < found["instructions_per_token"][cpu] < 20 * weights
        assert found["estimate"][cpu]["tokens_per_s"] > 0
