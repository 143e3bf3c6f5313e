"""The benchmark beside other engines runs, on a tiny model, with those that are installed here.

Times are not looked at. What is: that everybody computes the same model, and that the report is whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RATES = ("prefill_tps", "decode_tps", "together_tps")


def run_peers(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "bench" / "peers.py"), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def report(cache: Path) -> dict[str, Any]:
    """Two rounds with everybody who is here, but MNN: exporting takes long and has tests of its own."""
    peers = "pocketglm,pocketglm-chatglm,llama.cpp,openvino,onnxruntime,transformers"
    sizes = (
        "--first-prompt",
        24,
        "--prompts",
        "8,24",
        "--contexts",
        "4",
        "--sequences",
        "1,2",
        "--new-tokens",
        "3",
    )
    output = cache / "peers.json"
    options = ("--case", "tiny", "--rounds", 2, "--cache", cache, "--output", output, "--peers", peers)
    done = run_peers(*options, *sizes)
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(output.read_text()) == {"tiny": printed}
    return printed


def test_the_report_is_whole(report: dict[str, Any]) -> None:
    assert not report["failures"]
    assert report["limits"]["read"] > 1e8
    assert report["limits"]["dot"] > 1e8
    rows = {row["peer"]: row for row in report["rows"]}
    assert {"pocketglm", "pocketglm-chatglm"} <= set(rows)
    for row in rows.values():
        assert row["rounds"] == 2
        assert set(row["prefill_tps"]) == {"8", "24"}
        assert set(row["decode_tps"]) == {"4"}
        assert all(rate > 0 for name in RATES for rate in row[name].values())
        assert row["first_token_from_start_s"] > row["first_token_s"] > row["load_s"] > 0
    assert set(rows["pocketglm"]["together_tps"]) == {"1", "2"}


def test_everybody_computes_the_same_model(report: dict[str, Any]) -> None:
    cosines = {row["peer"]: row["cosine"] for row in report["rows"]}
    assert cosines.pop("pocketglm-chatglm") is None  # other blocks
    assert cosines
    for peer, cosine in cosines.items():
        assert cosine > 0.999, f"{peer} computes something else"


def test_memory_counts_the_weights(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        assert row["weight_bytes_per_token"] > 400_000
        assert row.get("peak_rss_bytes", 1 << 40) > row["weight_bytes_per_token"]


def test_one_row_for_each_format_is_written_once(report: dict[str, Any], cache: Path) -> None:
    assert report["rows"]
    models = [path for path in (cache / "tiny").iterdir() if path.name.startswith("partial-")]
    assert models == []
    before = (cache / "tiny" / "package" / "manifest.json").stat().st_mtime_ns
    run_peers("--case", "tiny", "--rounds", 0, "--cache", cache, "--peers", "pocketglm")
    assert (cache / "tiny" / "package" / "manifest.json").stat().st_mtime_ns == before


def test_unknown_peers_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert "unknown peer: nobody" in run_peers("--peers", "nobody", code=1).stderr
    assert "unknown peer: nobody" in run_peers("--python", "nobody=python3", code=1).stderr
    missing = run_peers("--case", "smollm2", "--gguf", tmp_path / "no.gguf", code=1)
    assert "no.gguf not found" in missing.stderr


def test_a_peer_that_is_not_there_is_named(tmp_path: Path) -> None:
    options = ("--case", "tiny", "--rounds", 0, "--cache", tmp_path)
    done = run_peers(*options, "--peers", "mnn-source")
    assert "mnn-source: not there" in done.stderr
    assert list(tmp_path.iterdir()) == []
