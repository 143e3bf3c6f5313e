"""Tiny model settings that together use everything a `ModelSpec` can say."""

from __future__ import annotations

from dataclasses import replace

from pocketglm.architecture.spec import ModelSpec, PrefixTokens, RopeScaling, RotarySpec
from pocketglm.quantize.formats import WeightFormat

GMASK, SOP = 41, 42
"""Special tokens of the ChatGLM-6B-like spec."""

_PLAIN = ModelSpec(
    family="tiny",
    vocab_size=50,
    hidden_size=64,
    num_blocks=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    intermediate_size=96,
    max_context=512,
    norm="rmsnorm",
    norm_eps=1e-5,
    residual="pre",
    rotary=RotarySpec("half", 16, 10000.0),
    mlp="gated_silu",
    tied_head=False,
)

SPECS: dict[str, ModelSpec] = {
    "plain": _PLAIN,
    "prefix_2d_alpha_layernorm_gelu": replace(
        _PLAIN,
        norm="layernorm",
        residual="normed_alpha",
        residual_alpha=2.5,
        rotary=RotarySpec("half", 16, 10000.0, axes=2, frequency_dtype="float16"),
        mlp="gelu_tanh",
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        positions="glm_2d",
        prefix_tokens=PrefixTokens(mask=40, gmask=GMASK, sop=SOP),
    ),
    "grouped_interleaved_partial_bias": replace(
        _PLAIN, num_kv_heads=2, qkv_bias=True, rotary=RotarySpec("interleaved", 8, 10000.0)
    ),
    "one_kv_head_qk_norm_wide_heads": replace(
        _PLAIN,
        num_kv_heads=1,
        head_dim=24,
        qk_norm=True,
        tied_head=True,
        rotary=RotarySpec("half", 24, 1e6),
    ),
    "sandwich": replace(
        _PLAIN, num_kv_heads=2, residual="sandwich", rotary=RotarySpec("interleaved", 8, 10000.0)
    ),
    "sliding_window": replace(_PLAIN, num_kv_heads=2, sliding_window=5, sliding_window_start=1),
    "llama3_scaling_odd_sizes": replace(
        _PLAIN,
        hidden_size=60,
        num_heads=6,
        num_kv_heads=3,
        head_dim=10,
        intermediate_size=172,
        rotary=RotarySpec("half", 10, 10000.0, scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 16)),
    ),
    "linear_scaling_all_biases": replace(
        _PLAIN,
        norm="layernorm",
        mlp="gelu_tanh",
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        embedding_scale=3.0,
        rotary=RotarySpec("half", 16, 10000.0, scaling=RopeScaling("linear", 4.0)),
    ),
}

FORMATS: dict[str, WeightFormat] = {
    "float32": WeightFormat(32),
    "float16": WeightFormat(16),
    "int8-g64": WeightFormat(8, 64),
    "int8-row-symmetric": WeightFormat(8, 0, symmetric=True),
    "int4-g32": WeightFormat(4, 32),
    "int4-g64-symmetric": WeightFormat(4, 64, symmetric=True),
    "int4-row": WeightFormat(4, 0),
}


def prompt(spec: ModelSpec, count: int, seed: int = 0) -> list[int]:
    """`count` token ids; where the spec needs it, the prompt's context is its first 7 tokens."""
    ids = [(seed * 13 + 7 * i + i * i // 3) % 40 for i in range(count)]
    if spec.prefix_tokens is not None:
        ids[6:8] = [GMASK, SOP]
    return ids


def context(spec: ModelSpec) -> int:
    """Tokens of `prompt` that must be computed together, `<sop>` included."""
    return 8 if spec.prefix_tokens is not None else 1
