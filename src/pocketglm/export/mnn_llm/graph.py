"""`llm.mnn`: the graph of a whole decoder, its weights in `llm.mnn.weight`.

Enters: a spec and where its tensors lie. Leaves: the bytes of the graph. No weight is read.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pocketglm.architecture.spec import ModelSpec
from pocketglm.errors import EngineError
from pocketglm.export.external_weights import Operator, point_at_weights
from pocketglm.export.mnn_converter import graph_from_onnx, graph_to_bytes
from pocketglm.export.mnn_llm.weights import EmbeddingForm
from pocketglm.export.onnx_trace import require_torch, trace
from pocketglm.package.encoding import TensorEntry

GRAPH_FILE = "llm.mnn"
INPUTS = ("input_ids", "attention_mask", "position_ids", "logits_index")
MAKER = "pocketglm"

_SCOPE = re.compile(r"/(blocks\.(?P<block>\d+)|head)/")
"""The module that a placeholder was traced in, as it stands in the operator's name."""


def make_graph(spec: ModelSpec, tensors: Mapping[str, TensorEntry], embedding: EmbeddingForm) -> bytes:
    """The graph of `spec` over `tensors` (full names). Raises `EngineError`, `MissingExtraError`."""
    with tempfile.TemporaryDirectory(prefix="pocketglm-") as name:
        folder = Path(name)
        onnx_file = folder / "traced.onnx"
        _trace(spec, embedding, onnx_file)
        graph = graph_from_onnx(onnx_file, folder)
        graph["oplists"] = [_named(op) for op in graph["oplists"]]
        graph["bizCode"] = MAKER
        entries = [replace(entry, name=full_name) for full_name, entry in tensors.items()]
        return graph_to_bytes(point_at_weights(graph, entries, spec.norm_eps), folder)


def _trace(spec: ModelSpec, embedding: EmbeddingForm, path: Path) -> None:
    require_torch()
    import torch

    from pocketglm.export.mnn_llm.model_module import CachingDecoder, has_window

    rows, parts = 3, 3 if embedding == "three-bfloat16" else 1  # any number of rows does
    if spec.positions == "glm_2d":
        mask = torch.zeros(1, 1, rows, rows, dtype=torch.int32)
        positions = torch.zeros(1, 2, rows, dtype=torch.int32)
        axes = {"attention_mask": {2: "rows", 3: "columns"}, "position_ids": {2: "rows"}}
    else:
        mask = torch.zeros(2, 1, 1, rows, rows) if has_window(spec) else torch.zeros(1, 1, rows, rows)
        positions = torch.zeros(1, rows, dtype=torch.int32)
        last = mask.ndim - 1
        axes = {"attention_mask": {last - 1: "rows", last: "columns"}, "position_ids": {1: "rows"}}
    inputs = (
        torch.zeros(rows, 1, parts * spec.hidden_size),
        mask,
        positions,
        torch.tensor([-1], dtype=torch.int32),
    )
    axes = {"input_ids": {0: "rows"}, **axes, "logits": {1: "rows"}}
    trace(CachingDecoder(spec, parts), inputs, INPUTS, ("logits",), axes, path)


def _named(op: Operator) -> Operator:
    """Placeholders get their tensor's full name; those of attention become MNN's operator."""
    if op["type"] != "Extra":
        return op
    scope = _SCOPE.search(op["name"])
    if scope is None:
        raise EngineError(f"MNN's converter renamed the operator {op['name']!r}")
    block = scope["block"]
    if op["main"]["type"] == "Attention":
        # Scalars that are 0 in the file's schema cannot be written, and kv_cache must be true anyway
        main = {"kv_cache": True, "layer_index": int(block), "kv_shared_layer_index": -1}
        return {**op, "type": "Attention", "main_type": "AttentionParam", "main": main}
    prefix = "" if block is None else f"block.{block}."
    attributes = [
        {**item, "s": prefix + item["s"]} if item["key"] == "name" else item for item in op["main"]["attr"]
    ]
    return {**op, "main": {**op["main"], "attr": attributes}}
