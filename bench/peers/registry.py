"""Who takes part: a line for each peer, and how to find the Python environment that has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent.parent
START = (
    "import sys; sys.path[0] = sys.argv.pop(1); import peers; sys.path.pop(0); "
    "import importlib; importlib.import_module('peers.' + sys.argv.pop(1)).main()"
)
"""Runs a module of this package, and leaves no folder of the benchmark where a peer looks for modules:
transformers would take `bench/kernels.py` for a library that it knows."""

FIND = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)"


@dataclass(frozen=True)
class Peer:
    """`module` runs it, `package` must be importable, `model` names what it loads (see models.py).

    `bits` are those of a stored weight, scales and zero points included.
    """

    name: str
    label: str
    module: str
    package: str
    model: str
    bits: float
    cases: tuple[str, ...] = ("block8", "block8-kv2", "chatglm-6b", "tiny")
    settings: Mapping[str, Any] = field(default_factory=dict)
    named_only: bool = False  # takes part only where an environment was named for it


INT4 = 4 + 32 / 64  # zero and scale, float16, for 64 weights


def openvino(group: int) -> dict[str, str]:
    """The cache type is its default. Activations in the weights' groups: 1.2 times its default's speed."""
    return {"KV_CACHE_PRECISION": "u8", "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group)}


SHAPED = Peer.cases
ALL = (*SHAPED, "smollm2")
OWN = ("block8", "chatglm-6b", "tiny")
U4 = 4 + (16 + 4) / 64  # scale and zero point
I4 = 4 + 16 / 128
ONNX = 4 + 32 / 64
PEERS = (
    Peer("pocketglm", "PocketGLM", "pocketglm_native", "pocketglm", "package", INT4, ALL),
    Peer(
        "pocketglm-chatglm",
        "PocketGLM, ChatGLM-6B's own blocks",
        *("pocketglm_native", "pocketglm", "chatglm-package"),
        bits=INT4,
        cases=OWN,
    ),
    Peer("llama.cpp", "llama.cpp", "llama_cpp_peer", "llama_cpp", "model.gguf", 4.5, ALL),
    Peer("mnn", "MNN, wheel", "mnn_llm", "MNN", "mnn-llm", INT4, ALL),
    Peer(
        *("mnn-source", "MNN, from source with AVX-512"),
        *("mnn_llm", "MNN", "mnn-llm"),
        bits=INT4,
        cases=ALL,
        named_only=True,
    ),
    Peer(
        *("openvino", "OpenVINO, u4 in groups of 64"),
        *("openvino_cpu", "openvino", "openvino-u4"),
        bits=U4,
        settings=openvino(64),
    ),
    Peer(
        *("openvino-i4", "OpenVINO, i4 in groups of 128"),
        *("openvino_cpu", "openvino", "openvino-i4-128"),
        bits=I4,
        settings=openvino(128),
    ),
    Peer(
        *("onnxruntime", "onnxruntime-genai, int4 in groups of 64"),
        *("onnxruntime_genai_cpu", "onnxruntime_genai", "onnx"),
        bits=ONNX,
    ),
    Peer("transformers", "transformers, bfloat16", "torch_bfloat16", "transformers", "bfloat16", 16),
)


@dataclass(frozen=True)
class Environments:
    """Python interpreters and extra module folders by peer. Options come first, then the environment.

    `POCKETGLM_PEER_LLAMA_CPP=/path/to/python` names the interpreter of `llama.cpp`.
    """

    pythons: Mapping[str, str]
    paths: Mapping[str, str]

    def python(self, peer: str) -> str:
        return self.pythons.get(peer) or os.environ.get(self._variable(peer)) or sys.executable

    def named(self, peer: str) -> bool:
        return peer in self.pythons or peer in self.paths or self._variable(peer) in os.environ

    def variables(self, peer: str) -> dict[str, str]:
        """Of a child process: where its modules are, and nothing from a hub."""
        return {**os.environ, "PYTHONPATH": self.paths.get(peer, ""), "HF_HUB_OFFLINE": "1"}

    def has(self, peer: Peer) -> bool:
        if peer.named_only and not self.named(peer.name):
            return False
        return _importable(self.python(peer.name), self.paths.get(peer.name, ""), peer.package)

    @staticmethod
    def _variable(peer: str) -> str:
        return "POCKETGLM_PEER_" + "".join(c if c.isalnum() else "_" for c in peer).upper()


def child_line(python: str, module: str, *arguments: str) -> list[str]:
    """The command that runs `peers.MODULE` with `python`."""
    return [python, "-c", START, str(BENCH), module, *arguments]


@cache
def _importable(python: str, folder: str, package: str) -> bool:
    variables = {**os.environ, "PYTHONPATH": folder}
    return subprocess.run([python, "-c", FIND, package], env=variables, check=False).returncode == 0
