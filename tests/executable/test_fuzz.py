"""The fuzz targets run for some seconds; `make fuzz FUZZ_SECONDS=600` runs them longer."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from executable.engine_process import ROOT
from package.packages import write_package as write_llama
from pocketglm.quantize.formats import WeightFormat

BUILD = ROOT / "build" / "fuzz"
SECONDS = os.environ.get("POCKETGLM_FUZZ_SECONDS", "4")

REQUESTS = [
    {"command": "load", "package": "P", "threads": 1, "kv": "int8", "context": 40, "isa": "scalar"},
    {"command": "load", "package": "P", "threads": 2, "memory": 1 << 26, "id": "é"},
    {"command": "generate", "tokens": [1, 2, 3], "max_tokens": 3, "end_tokens": [4], "id": "a"},
    {"command": "generate", "tokens": [1, 2, 9], "temperature": 0.8, "top_k": 5, "top_p": 0.5, "min_p": 0.1,
     "seed": 7, "repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1,
     "logit_bias": {"3": -5.5}, "ignore_end": True, "end_tokens": [5], "max_tokens": 4},
    {"command": "stats"},
    {"command": "unload", "id": "u"},
]  # fmt: skip


def fuzz(name: str, package: Path, corpus: dict[str, bytes], folder: Path) -> int:
    """Runs a target over the corpus. Returns how many inputs it tried."""
    program = BUILD / f"fuzz-{name}"
    if not program.is_file():
        pytest.skip(f"{program.name} is not built; `make fuzz` builds it")
    seeds = folder / "corpus"
    seeds.mkdir()
    for file, data in corpus.items():
        (seeds / file).write_bytes(data)
    # Detecting leaks needs ptrace, which containers often forbid; `make sanitize` looks for them too.
    command = [str(program), f"-max_total_time={SECONDS}", "-max_len=20000", "-rss_limit_mb=4096", str(seeds)]
    environment = {
        **os.environ,
        "POCKETGLM_FUZZ_PACKAGE": str(package),
        "TMPDIR": str(folder),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=float(SECONDS) + 120
    )
    assert done.returncode == 0, done.stderr[-5000:]
    runs = re.findall(r"Done (\d+) runs", done.stderr)
    assert runs, done.stderr[-2000:]
    print(f"fuzz-{name}: {runs[-1]} runs in {SECONDS} s")
    return int(runs[-1])


@pytest.mark.timeout(float(SECONDS) + 200)
def test_packages(tmp_path: Path) -> None:
    write_llama(tmp_path / "llama", WeightFormat(4, 32))
    glm = SPECS["prefix_2d_alpha_layernorm_gelu"]
    write_package(tmp_path / "glm", glm, random_tensors(glm), FORMATS["int8-row-symmetric"])
    manifests = {name: (tmp_path / name / "manifest.json").read_bytes() for name in ("llama", "glm")}
    small = {name: json.dumps(json.loads(text)).encode() for name, text in manifests.items()}
    corpus = {f"{name}-{head.hex()}": head + text for name, text in small.items()
              for head in (b"\0\0\0\0", b"\1\2\0\7", b"\2\1\0\7")}  # fmt: skip
    assert fuzz("package", tmp_path / "llama", corpus, tmp_path) > 100


@pytest.mark.timeout(float(SECONDS) + 200)
def test_protocol(tmp_path: Path) -> None:
    write_llama(tmp_path / "p", WeightFormat(4, 32))
    lines = [json.dumps(request).encode() + b"\n" for request in REQUESTS]
    corpus = {f"line-{number}": line for number, line in enumerate(lines)}
    corpus["all"] = b"".join(lines)
    assert fuzz("protocol", tmp_path / "p", corpus, tmp_path) > 100
