"""Writes one model: arguments KIND SHAPE PATH, in the environment that has what it takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peers.shape import Shape


def main() -> None:
    kind, shape, path = sys.argv[1], Shape(**json.loads(sys.argv[2])), Path(sys.argv[3])
    if kind in ("package", "chatglm-package"):
        from peers.write_package import chatglm_spec, llama_spec, write_package

        write_package(path, (llama_spec if kind == "package" else chatglm_spec)(shape))
    elif kind == "model.gguf":
        from peers.write_gguf import write_gguf

        write_gguf(path, shape)
    elif kind == "bfloat16":
        from peers.write_safetensors import write_safetensors

        write_safetensors(path, shape)
    elif kind == "onnx":
        from peers.write_onnx import write_onnx

        write_onnx(path, shape)
    elif kind.startswith("openvino-"):
        from peers.openvino_graph import Compression, write_openvino

        symmetric = kind.startswith("openvino-i4")
        write_openvino(path, shape, Compression(symmetric, 128 if kind.endswith("-128") else 64))
    else:
        raise SystemExit(f"unknown kind of model: {kind}")
