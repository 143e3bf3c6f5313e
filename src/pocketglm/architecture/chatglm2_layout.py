"""The layout that ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B share, from the released `modeling_chatglm.py`.

Enters: their settings and tensor names. Leaves: spec and tensor table; a family adds its prompt, tokens
and rotary base.
"""

from __future__ import annotations

from pocketglm.architecture.config import Config, refuse_unsupported
from pocketglm.architecture.generation_defaults import GenerationDefaults, read_generation
from pocketglm.architecture.layout import Sources, build_table
from pocketglm.architecture.model import Architecture
from pocketglm.architecture.spec import ModelSpec, RopeScaling, RotarySpec
from pocketglm.architecture.table import TensorTable
from pocketglm.architecture.templates import load_template
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint

IGNORED = r"transformer\.rotary_pos_emb\.inv_freq"
REQUIRED = {
    "pre_seq_len": 0,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "tie_word_embeddings": False,
}
"""Settings with the only value that the released models use and this file implements."""


def build_with_base(
    checkpoint: Checkpoint, family: str, defaults: GenerationDefaults, tokenizer: TokenizerQuirks
) -> Architecture:
    """ChatGLM3 and GLM-4: `rope_ratio` multiplies the rotary base."""
    base = 10000.0 * Config.of(checkpoint).number("rope_ratio", 1.0)
    return build_layout(checkpoint, family, base, defaults, tokenizer)


def build_layout(
    checkpoint: Checkpoint,
    family: str,
    base: float,
    defaults: GenerationDefaults,
    tokenizer: TokenizerQuirks,
    scaling: RopeScaling | None = None,
) -> Architecture:
    """A model of this layout whose chat template is named as its family."""
    config = Config.of(checkpoint)
    refuse_unsupported(config)
    for name, value in REQUIRED.items():
        config.accept(name, value)
    spec = _spec(config, family, base, scaling)
    return Architecture(
        spec=spec,
        table=_table(spec, checkpoint),
        template=load_template(family),
        generation=read_generation(checkpoint, spec.vocab_size, defaults),
        tokenizer=tokenizer,
    )


def _spec(config: Config, family: str, base: float, scaling: RopeScaling | None) -> ModelSpec:
    head_dim = config.integer("kv_channels")
    return ModelSpec(
        family=family,
        vocab_size=config.integer("padded_vocab_size"),
        hidden_size=config.integer("hidden_size"),
        num_blocks=config.integer("num_layers"),
        num_heads=config.integer("num_attention_heads"),
        num_kv_heads=config.integer("multi_query_group_num"),
        head_dim=head_dim,
        intermediate_size=config.integer("ffn_hidden_size"),
        max_context=config.integer("seq_length"),
        norm="rmsnorm",
        norm_eps=config.number("layernorm_epsilon"),
        residual="pre",
        rotary=RotarySpec("interleaved", head_dim // 2, base, scaling=scaling),
        mlp="gated_silu",
        tied_head=False,
        qkv_bias=config.flag("add_qkv_bias"),
    )


def _table(spec: ModelSpec, checkpoint: Checkpoint) -> TensorTable:
    def block(index: int) -> Sources:
        prefix = f"transformer.encoder.layers.{index}."
        return {
            "input_norm": f"{prefix}input_layernorm",
            "attention.qkv": f"{prefix}self_attention.query_key_value",
            "attention.output": f"{prefix}self_attention.dense",
            "mlp_norm": f"{prefix}post_attention_layernorm",
            "mlp.gate_up": f"{prefix}mlp.dense_h_to_4h",
            "mlp.down": f"{prefix}mlp.dense_4h_to_h",
        }

    return build_table(
        spec,
        checkpoint,
        embedding="transformer.embedding.word_embeddings",
        block=block,
        norm="transformer.encoder.final_layernorm",
        head="transformer.output_layer",
        ignored=IGNORED,
    )
