"""The GPU benchmark runs on the CPU, on a tiny model; without a GPU it says so and measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


def run_gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "bench" / "gpu.py"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="this machine has a GPU, and would measure it for minutes"
)
def test_says_that_there_is_no_gpu() -> None:
    done = run_gpu()
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr


def test_all_steps_run(tmp_path: Path) -> None:
    sizes = ("--prompt", 12, "--tokens", 3, "--rounds", 1, "--tiny", "--device", "cpu")
    done = run_gpu(*sizes, "--hybrid", tmp_path / "packages", "--output", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert list(report["models"]) == ["int4", "int8", "float16", "int4, no graphs", "pytorch float16"]
    for figures in report["models"].values():
        assert all(figures[name] > 0 for name in ("prefill_tps", "decode_tps", "bandwidth_gbs"))
    sizes_by_name = {name: figures["weight_bytes"] for name, figures in report["models"].items()}
    assert sizes_by_name["int4"] < sizes_by_name["int8"] < sizes_by_name["float16"]
    assert len(report["products"]) == 3 * 4
    assert list(report["products"][0]["rows"]) == ["1", "2", "4", "16", "12"]
    assert [line["gpu_share"] for line in report["hybrid"]] == [0.25, 0.5, 0.75, 1.0]
    assert "torch" in report["hybrid"][-1]["engine"]


def test_plain_float16_reads_its_cache() -> None:
    """A prompt at once and token by token: the same last logits."""
    from gpu import TINY
    from gpu_models import Float16Model
    from peers.write_package import chatglm_spec

    spec = chatglm_spec(TINY)
    model = Float16Model(spec, torch.device("cpu"), 16)
    rows = np.random.default_rng(0).normal(size=(6, spec.hidden_size)).astype(np.float32)
    whole = model.feed(rows)
    model.restart()
    for row in rows:
        last = model.feed(row[None])
    assert np.abs(last - whole).max() < 2e-2 * np.abs(whole).max()
