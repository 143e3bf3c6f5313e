"""ChatGLM-6B, first generation: both releases, with 150528 (image tokens first) and 130528 rows.

Facts are from the released `modeling_chatglm.py` and `tokenization_chatglm.py`. The 20000 image
tokens are never produced by text, so they are dropped, which gives the second release's row layout.
"""

from __future__ import annotations

import math

from pocketglm.architecture.config import Config, refuse_unsupported
from pocketglm.architecture.generation_defaults import GenerationDefaults, read_generation
from pocketglm.architecture.layout import Sources, build_table
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.spec import ModelSpec, PrefixTokens, RotarySpec
from pocketglm.architecture.table import RowRange, TensorTable
from pocketglm.architecture.templates import load_template
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint

EMBEDDING, HEAD = "transformer.word_embeddings", "lm_head"
IGNORED = r"transformer\.layers\.\d+\.attention\.rotary_emb\.inv_freq"
IMAGE_TOKENS = {150528: 20000, 130528: 0}  # rows of the release -> image tokens at their front
MASK, GMASK, SOP, EOP = 130000, 130001, 130004, 130005  # ids without the image tokens
RESIDUAL_ALPHA = math.sqrt(2 * 28)  # upstream never passes the real number of layers
BLANKS = tuple((" " * count, f"<|blank_{count}|>") for count in range(80, 1, -1))  # longest run first


def build(checkpoint: Checkpoint) -> Architecture:
    config = Config.of(checkpoint)
    refuse_unsupported(config)
    config.accept("pre_seq_len", 0)
    config.accept("position_encoding_2d", True)
    rows = config.integer("vocab_size")
    dropped = config.integer("num_image_tokens", IMAGE_TOKENS.get(rows, 0))
    if not 0 <= dropped < rows:
        raise config.malformed("num_image_tokens", f"0 to {rows - 1}")
    spec = _spec(config, checkpoint, rows - dropped, dropped)
    defaults = GenerationDefaults(
        do_sample=True, temperature=0.95, top_p=0.7, max_length=2048, eos_token_ids=(EOP,), pad_token_id=3
    )
    return Architecture(
        spec=spec,
        table=_table(spec, checkpoint, dropped),
        template=load_template("chatglm"),
        generation=read_generation(checkpoint, spec.vocab_size, defaults, dropped),
        tokenizer=TokenizerQuirks(
            kind="sentencepiece",
            file="ice_text.model",
            special_pieces=("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
            suffix_tokens=("[gMASK]", "<sop>"),
            replacements=(("\n", "<n>"), ("\t", "<|tab|>"), *BLANKS),
            dropped_rows=dropped,
        ),
    )


def _spec(config: Config, checkpoint: Checkpoint, vocab_size: int, dropped: int) -> ModelSpec:
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = hidden // max(heads, 1)

    def token(name: str, known: int) -> int:
        default = known + dropped if vocab_size > known else None
        found = config.integer(name, default) - dropped
        if not 0 <= found < vocab_size:
            raise config.malformed(name, f"a token id from {dropped} to {dropped + vocab_size - 1}")
        return found

    return ModelSpec(
        family="chatglm",
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_blocks=config.integer("num_layers"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=head_dim,
        intermediate_size=config.integer("inner_hidden_size", 4 * hidden),
        max_context=config.integer("max_sequence_length", 2048),
        norm="layernorm",
        norm_eps=config.number("layernorm_epsilon", 1e-5),
        residual="normed_alpha",
        residual_alpha=RESIDUAL_ALPHA,
        rotary=RotarySpec("half", head_dim, 10000.0, axes=2, frequency_dtype="float16"),
        mlp="gelu_tanh",
        tied_head=f"{HEAD}.weight" not in checkpoint.tensors,
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        positions="glm_2d",
        prefix_tokens=PrefixTokens(
            mask=token("mask_token_id", MASK),
            gmask=token("gmask_token_id", GMASK),
            sop=token("bos_token_id", SOP),
        ),
    )


def _table(spec: ModelSpec, checkpoint: Checkpoint, dropped: int) -> TensorTable:
    def block(index: int) -> Sources:
        prefix = f"transformer.layers.{index}."
        return {
            "input_norm": f"{prefix}input_layernorm",
            "attention.qkv": _by_part(f"{prefix}attention.query_key_value", spec),
            "attention.output": f"{prefix}attention.dense",
            "mlp_norm": f"{prefix}post_attention_layernorm",
            "mlp.up": f"{prefix}mlp.dense_h_to_4h",
            "mlp.down": f"{prefix}mlp.dense_4h_to_h",
        }

    return build_table(
        spec,
        checkpoint,
        embedding=EMBEDDING,
        block=block,
        norm="transformer.final_layernorm",
        head=EMBEDDING if spec.tied_head else HEAD,
        ignored=IGNORED,
        dropped_rows=dropped,
    )


def _by_part(source: str, spec: ModelSpec) -> tuple[RowRange, ...]:
    """All q, then k, then v, from rows that are ordered by head: [heads, 3, head_dim]."""
    size = spec.head_dim
    parts = ((head * 3 + part) * size for part in range(3) for head in range(spec.num_heads))
    return tuple(RowRange(source, start, size) for start in parts)


FAMILY = Family(
    name="chatglm",
    model_types=("chatglm",),
    examples=("ChatGLM-6B, both releases (150528 and 130528 rows)",),
    refused=("P-tuning prefixes (pre_seq_len)", "the int8 and int4 checkpoints (quantization_bit)"),
    build=build,
    accepts=lambda checkpoint: (
        "inner_hidden_size" in checkpoint.config or f"{EMBEDDING}.weight" in checkpoint.tensors
    ),
)
