"""The layout that ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B share, from the released `modeling_chatglm.py`.

Enters: their settings and tensor names. Leaves: spec and tensor table; a family adds its prompt, tokens
and rotary base.
"""

from __future__ import annotations

from pocketglm.architecture.config import Config, refuse_unsupported
from pocketglm.architecture.generation_defaults import GenerationDefaults, read_generation
from pocketglm.architecture.layout import Pieces, build_table, whole
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
    hidden = spec.hidden_size

    def block(index: int) -> Pieces:
        prefix = f"transformer.encoder.layers.{index}."
        qkv = f"{prefix}self_attention.query_key_value"
        return {
            "input_norm.weight": whole(f"{prefix}input_layernorm.weight", hidden),
            "attention.qkv.weight": whole(f"{qkv}.weight", spec.q_size + 2 * spec.kv_size),
            "attention.qkv.bias": whole(f"{qkv}.bias", spec.q_size + 2 * spec.kv_size),
            "attention.output.weight": whole(f"{prefix}self_attention.dense.weight", hidden),
            "mlp_norm.weight": whole(f"{prefix}post_attention_layernorm.weight", hidden),
            "mlp.gate_up.weight": whole(f"{prefix}mlp.dense_h_to_4h.weight", 2 * spec.intermediate_size),
            "mlp.down.weight": whole(f"{prefix}mlp.dense_4h_to_h.weight", hidden),
        }

    head = {
        "norm.weight": whole("transformer.encoder.final_layernorm.weight", hidden),
        "head.weight": whole("transformer.output_layer.weight", spec.vocab_size),
    }
    embedding = "transformer.embedding.word_embeddings.weight"
    return build_table(spec, checkpoint, embedding=embedding, block=block, head=head, ignored=IGNORED)
