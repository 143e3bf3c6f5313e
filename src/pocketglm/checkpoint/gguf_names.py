"""Hugging Face names for the tensors of GGUF files, one table a GGUF architecture.

Enters: a GGUF tensor name (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Leaves: the
name that the original checkpoint uses, so that one architecture file serves both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_BLOCK = re.compile(r"blk\.(\d{1,5})\.(\w+)\.(weight|bias)")
_OUTER = re.compile(r"(\w+)\.(weight|bias)")


@dataclass(frozen=True)
class NameTable:
    """`outer` holds names outside the blocks, `inner` those inside; `prefix` is filled with the block."""

    prefix: str
    outer: Mapping[str, str]
    inner: Mapping[str, str]

    def translate(self, name: str) -> str:
        """The Hugging Face name; a name that is not in the table stays as it is."""
        if match := _BLOCK.fullmatch(name):
            inner = self.inner.get(match[2])
            return f"{self.prefix.format(int(match[1]))}{inner}.{match[3]}" if inner else name
        if match := _OUTER.fullmatch(name):
            outer = self.outer.get(match[1])
            return f"{outer}.{match[2]}" if outer else name
        return name


_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_LLAMA_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA_INNER = {
    **_ATTENTION,
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LLAMA = NameTable("model.layers.{}.", _LLAMA_OUTER, _LLAMA_INNER)

NAME_TABLES: dict[str, NameTable] = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": NameTable(
        "model.layers.{}.",
        _LLAMA_OUTER,
        {**_LLAMA_INNER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
    ),
    "glm4": NameTable(
        "model.layers.{}.",
        _LLAMA_OUTER,
        {
            **_ATTENTION,
            "post_attention_norm": "post_self_attn_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            "post_ffw_norm": "post_mlp_layernorm",
        },
    ),
    "chatglm": NameTable(
        "transformer.encoder.layers.{}.",
        {
            "token_embd": "transformer.embedding.word_embeddings",
            "output_norm": "transformer.encoder.final_layernorm",
            "output": "transformer.output_layer",
        },
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
}
