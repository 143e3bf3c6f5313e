"""The settings of a GGUF file in the notation of `config.json`.

Enters: GGUF metadata and tensor shapes. Leaves: a dictionary with the names that the original
checkpoint's configuration uses. A setting of the architecture that is not known is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketglm.checkpoint.gguf_header import GGUFMetadata
from pocketglm.checkpoint.gguf_names import NAME_TABLES
from pocketglm.errors import CheckpointError, UnsupportedModelError

Shapes = Mapping[str, tuple[int, ...]]  # by GGUF name

_REQUIRED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_OPTIONAL = {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
}
_NO_EFFECT = {"vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type"}
_NEUTRAL = {
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "use_parallel_residual": True,
}
"""Settings that are allowed as long as they say what a plain decoder does anyway."""

_CHATGLM_NAMES = {
    "num_hidden_layers": "num_layers",
    "max_position_embeddings": "seq_length",
    "intermediate_size": "ffn_hidden_size",
    "num_key_value_heads": "multi_query_group_num",
    "head_dim": "kv_channels",
    "rms_norm_eps": "layernorm_epsilon",
    "vocab_size": "padded_vocab_size",
    "attention_bias": "add_qkv_bias",
}


def read_config(metadata: GGUFMetadata, shapes: Shapes, path: Path) -> dict[str, Any]:
    """The settings of the model, under the names of its family's `config.json`."""
    architecture = _architecture(metadata, path)
    settings = _Settings(metadata, architecture, path)
    settings.refuse_unknown()
    config: dict[str, Any] = {"model_type": architecture, "hidden_act": "silu"}
    config |= {name: settings.number(key) for key, name in _REQUIRED.items()}
    config["num_key_value_heads"] = settings.number("attention.head_count_kv", config["num_attention_heads"])
    config["head_dim"] = _head_dim(settings, config)
    config["vocab_size"] = _vocabulary(shapes, path)
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config["attention_bias"] = "blk.0.attn_q.bias" in shapes or "blk.0.attn_qkv.bias" in shapes
    config["mlp_bias"] = "blk.0.ffn_up.bias" in shapes
    config |= _rotary(settings, config["head_dim"])
    config |= _special_tokens(metadata)
    if architecture == "llama":  # llama.cpp stores q and k so that the pairs to rotate are neighbours
        config["rope_interleaved"] = True
    return _as_chatglm(config, path) if architecture == "chatglm" else config


def _architecture(metadata: GGUFMetadata, path: Path) -> str:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in NAME_TABLES:
        raise UnsupportedModelError(
            f"GGUF architecture {architecture!r} is not supported, expected one of {', '.join(NAME_TABLES)}",
            where=path,
        )
    splits = metadata.get("split.count", 1)
    if splits not in (0, 1):
        raise UnsupportedModelError(
            "is one part of a split GGUF model", where=path, hint="join the parts: llama-gguf-split --merge"
        )
    return architecture


class _Settings:
    """Metadata of one architecture, with typed access."""

    def __init__(self, metadata: GGUFMetadata, architecture: str, path: Path) -> None:
        self._metadata = metadata
        self._prefix = f"{architecture}."
        self.path = path

    def refuse_unknown(self) -> None:
        for key in self._metadata:
            name = key.removeprefix(self._prefix)
            if name == key or name in _REQUIRED or name in _OPTIONAL or name in _NO_EFFECT:
                continue
            if self._metadata.is_array(key) or name not in _NEUTRAL or self._metadata[key] != _NEUTRAL[name]:
                raise UnsupportedModelError(f"the setting {key} is not supported", where=self.path)

    def get(self, name: str) -> Any:
        return self._metadata.get(self._prefix + name)

    def number(self, name: str, default: float | None = None) -> Any:
        """A number; where the file gives one for each block, the one that they all share."""
        value = self.get(name)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            expected = "one number for all blocks" if isinstance(value, list) else "a number"
            found = "nothing" if value is None else type(value).__name__
            raise CheckpointError(
                f"metadata {self._prefix}{name}: expected {expected}, found {found}", where=self.path
            )
        return value


def _head_dim(settings: _Settings, config: Mapping[str, Any]) -> int:
    heads = config["num_attention_heads"]
    if not isinstance(heads, int) or heads < 1:
        raise CheckpointError(f"metadata attention.head_count is {heads}", where=settings.path)
    default = config["hidden_size"] // heads
    key, value = (
        settings.number("attention.key_length", default),
        settings.number("attention.value_length", default),
    )
    if key != value:
        raise UnsupportedModelError(
            f"attention keys of {key} and values of {value} elements are not supported", where=settings.path
        )
    return int(key)


def _vocabulary(shapes: Shapes, path: Path) -> int:
    shape = shapes.get("token_embd.weight")
    if shape is None or len(shape) != 2:
        raise CheckpointError("tensor token_embd.weight is missing or not a matrix", where=path)
    return shape[0]


def _rotary(settings: _Settings, head_dim: int) -> dict[str, Any]:
    config: dict[str, Any] = {"rope_theta": settings.number("rope.freq_base", 10000.0)}
    dimensions = settings.number("rope.dimension_count", head_dim)
    if dimensions != head_dim:
        config["partial_rotary_factor"] = dimensions / max(head_dim, 1)
    kind = settings.get("rope.scaling.type")
    factor = settings.number("rope.scaling.factor", settings.number("rope.scale_linear", 1.0))
    if kind is None:
        kind = "none" if factor == 1 else "linear"
    if kind != "none":
        config["rope_scaling"] = {"rope_type": kind, "factor": factor}
    return config


def _special_tokens(metadata: GGUFMetadata) -> dict[str, Any]:
    """Ids of the special tokens. A model that ends turns with a token of its own stops on both."""
    names = {
        "bos_token_id": "bos",
        "eos_token_id": "eos",
        "pad_token_id": "padding",
        "unk_token_id": "unknown",
    }
    found = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    tokens = {name: value for name, value in found.items() if isinstance(value, int)}
    turn = metadata.get("tokenizer.ggml.eot_token_id")
    if isinstance(turn, int) and "eos_token_id" in tokens and turn != tokens["eos_token_id"]:
        return {**tokens, "eos_token_id": [tokens["eos_token_id"], turn]}
    return tokens


def _as_chatglm(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same settings under the names of ChatGLM2, ChatGLM3 and GLM-4-9B."""
    result = {_CHATGLM_NAMES.get(name, name): value for name, value in config.items()}
    if "rope_scaling" in result:
        raise UnsupportedModelError("rotary scaling of a chatglm GGUF file is not supported", where=path)
    share = result.pop("partial_rotary_factor", 1.0)
    if share != 0.5:
        raise UnsupportedModelError(
            f"rotates {share:g} of a head; ChatGLM models rotate one half", where=path
        )
    result["rope_ratio"] = result.pop("rope_theta") / 10000
    result["add_bias_linear"] = result.pop("mlp_bias")
    return {
        **result,
        "rmsnorm": True,
        "multi_query_attention": True,
        "post_layer_norm": True,
        "apply_residual_connection_post_layernorm": False,
        "original_rope": True,
    }
