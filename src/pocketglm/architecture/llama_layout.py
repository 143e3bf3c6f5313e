"""The decoder layout that Llama, Mistral, Qwen2, Qwen3 and the library's GLM share.

Enters: settings and tensor names as the transformers library writes them. Leaves: spec fields and a
tensor table. A family states only where it differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pocketglm.architecture.config import Config, refuse_unsupported
from pocketglm.architecture.generation_defaults import GenerationDefaults, read_generation
from pocketglm.architecture.layout import Sources, build_table, stacked
from pocketglm.architecture.model import Architecture
from pocketglm.architecture.rope import read_rotary
from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import TensorTable
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
IGNORED = r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
"""Older releases stored the rotary frequencies, which follow from the settings."""

PRE_NORMS: Mapping[str, str] = {"input_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
"""Canonical norm -> the checkpoint's name for it."""


def read_spec(config: Config, checkpoint: Checkpoint, family: str, **changes: Any) -> ModelSpec:
    """The spec of a plain Llama decoder with a family's `changes` on top."""
    refuse_unsupported(config)
    config.accept("hidden_act", "silu", "swish")
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    head_dim = config.integer("head_dim", hidden // max(heads, 1))
    max_context = config.integer("max_position_embeddings")
    settings: dict[str, Any] = {
        "family": family,
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden,
        "num_blocks": config.integer("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": config.integer("num_key_value_heads", heads),
        "head_dim": head_dim,
        "intermediate_size": config.integer("intermediate_size"),
        "max_context": max_context,
        "norm": "rmsnorm",
        "norm_eps": config.number("rms_norm_eps"),
        "residual": "pre",
        "mlp": "gated_silu",
        "tied_head": _tied_head(config, checkpoint),
    }
    if "rotary" not in changes:
        # llama.cpp reorders q and k so that the pairs to rotate are neighbours; our GGUF reader says so.
        interleaved = config.flag("rope_interleaved", False)
        kind: Literal["half", "interleaved"] = "interleaved" if interleaved else "half"
        settings["rotary"] = read_rotary(config, head_dim, max_context, kind)
    return ModelSpec(**{**settings, **changes})


def _tied_head(config: Config, checkpoint: Checkpoint) -> bool:
    """Tied only where the checkpoint says so and brings no head of its own."""
    return config.flag("tie_word_embeddings", False) and f"{HEAD}.weight" not in checkpoint.tensors


def read_table(
    spec: ModelSpec, checkpoint: Checkpoint, norms: Mapping[str, str] = PRE_NORMS, fused_gate_up: bool = False
) -> TensorTable:
    """Table of the layout; `fused_gate_up` where gate and up projection are stored as one tensor."""

    def block(index: int) -> Sources:
        prefix = f"model.layers.{index}."
        attention, mlp, inter = f"{prefix}self_attn.", f"{prefix}mlp.", spec.intermediate_size
        gate_and_up = stacked((f"{mlp}gate_proj", inter), (f"{mlp}up_proj", inter))
        return {
            **{name: f"{prefix}{source}" for name, source in norms.items()},
            "attention.qkv": stacked(
                (f"{attention}q_proj", spec.q_size),
                (f"{attention}k_proj", spec.kv_size),
                (f"{attention}v_proj", spec.kv_size),
            ),
            "attention.q_norm": f"{attention}q_norm",
            "attention.k_norm": f"{attention}k_norm",
            "attention.output": f"{attention}o_proj",
            "mlp.gate_up": f"{mlp}gate_up_proj" if fused_gate_up else gate_and_up,
            "mlp.down": f"{mlp}down_proj",
        }

    return build_table(
        spec,
        checkpoint,
        embedding=EMBEDDING,
        block=block,
        norm="model.norm",
        head=EMBEDDING if spec.tied_head else HEAD,
        ignored=IGNORED,
    )


def finish(checkpoint: Checkpoint, spec: ModelSpec, table: TensorTable) -> Architecture:
    """An architecture whose tokenizer, chat template and sampling come with the checkpoint."""
    generation = read_generation(checkpoint, spec.vocab_size, GenerationDefaults())
    return Architecture(spec, table, None, generation, TokenizerQuirks())
