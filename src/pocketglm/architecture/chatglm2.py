"""ChatGLM2-6B: numbered rounds as prompts, no role tokens."""

from __future__ import annotations

from pocketglm.architecture import chatglm2_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.generation_defaults import GenerationDefaults
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.spec import RopeScaling
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint

TOKENIZER = TokenizerQuirks(
    kind="sentencepiece",
    file="tokenizer.model",
    appended_tokens=("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    prefix_tokens=("[gMASK]", "<sop>"),
)
"""After 64789 pieces: [MASK] is 64789 and <eop> 64793. Upstream calls the last two `sop` and `eop`; in
brackets they cannot be mistaken for letters of a text."""


def build(checkpoint: Checkpoint) -> Architecture:
    """ChatGLM2-6B. Its 32k version divides positions by `rope_ratio` (position interpolation)."""
    ratio = Config.of(checkpoint).number("rope_ratio", 1.0)
    scaling = None if ratio == 1 else RopeScaling("linear", ratio)
    defaults = GenerationDefaults(
        do_sample=True, temperature=0.8, top_p=0.8, max_length=8192, eos_token_ids=(2,), pad_token_id=0
    )
    return chatglm2_layout.build_layout(checkpoint, "chatglm2", 10000.0, defaults, TOKENIZER, scaling)


FAMILY = Family(
    name="chatglm2",
    model_types=("chatglm",),
    examples=("ChatGLM2-6B", "ChatGLM2-6B-32K"),
    refused=(
        "P-tuning prefixes (pre_seq_len)",
        "the int4 checkpoints (quantization_bit)",
        "multi_query_attention: false",
    ),
    build=build,
)
