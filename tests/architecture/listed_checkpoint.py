"""A checkpoint that lists tensors without data: published models are checked at their full size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pocketglm.checkpoint.source import Float32, TensorInfo

Shapes = Mapping[str, tuple[int, ...]]


class ListedCheckpoint:
    """Implements the `Checkpoint` protocol; every tensor reads as zeros."""

    def __init__(
        self, directory: Path, config: Mapping[str, Any], shapes: Shapes, dtype: str = "F16"
    ) -> None:
        self.format = "safetensors"
        self.path = self.directory = directory
        self.config = config
        self.metadata: Mapping[str, Any] = {}
        file = directory / "model.safetensors"
        self.tensors = {
            name: TensorInfo(name, dtype, shape, 2 * int(np.prod(shape)), file)
            for name, shape in shapes.items()
        }

    def read(self, name: str, start: int = 0, count: int | None = None) -> Float32:
        shape = self.tensors[name].shape
        return np.zeros((shape[0] - start if count is None else count, *shape[1:]), np.float32)

    def close(self) -> None:
        """Nothing is open."""


def write_side_file(checkpoint: ListedCheckpoint, name: str, content: object) -> None:
    """Put a JSON object (or plain text) beside the checkpoint."""
    text = content if isinstance(content, str) else json.dumps(content)
    (checkpoint.directory / name).write_text(text, encoding="utf-8")


def chatglm_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released ChatGLM-6B files."""
    hidden, inner, rows = config["hidden_size"], config["inner_hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.word_embeddings.weight": (rows, hidden),
        "transformer.final_layernorm.weight": (hidden,),
        "transformer.final_layernorm.bias": (hidden,),
        "lm_head.weight": (rows, hidden),
    }
    linears = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (inner, hidden),
        "mlp.dense_4h_to_h": (hidden, inner),
    }
    for layer in range(config["num_layers"]):
        prefix = f"transformer.layers.{layer}."
        shapes[f"{prefix}attention.rotary_emb.inv_freq"] = (hidden // config["num_attention_heads"] // 4,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{norm}.weight"] = shapes[f"{prefix}{norm}.bias"] = (hidden,)
        for name, shape in linears.items():
            shapes[f"{prefix}{name}.weight"], shapes[f"{prefix}{name}.bias"] = shape, shape[:1]
    return shapes


def chatglm2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released ChatGLM2-6B files, which ChatGLM3 and GLM-4-9B share."""
    hidden, inner, rows = config["hidden_size"], config["ffn_hidden_size"], config["padded_vocab_size"]
    qkv = config["kv_channels"] * (config["num_attention_heads"] + 2 * config["multi_query_group_num"])
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.embedding.word_embeddings.weight": (rows, hidden),
        "transformer.encoder.final_layernorm.weight": (hidden,),
        "transformer.output_layer.weight": (rows, hidden),
        "transformer.rotary_pos_emb.inv_freq": (config["kv_channels"] // 4,),
    }
    for layer in range(config["num_layers"]):
        prefix = f"transformer.encoder.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}self_attention.query_key_value.weight": (qkv, hidden),
            f"{prefix}self_attention.query_key_value.bias": (qkv,),
            f"{prefix}self_attention.dense.weight": (hidden, hidden),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}mlp.dense_h_to_4h.weight": (2 * inner, hidden),
            f"{prefix}mlp.dense_4h_to_h.weight": (hidden, inner),
        }
    return shapes


def transformers_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the transformers library saves for these settings."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if settings.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes
