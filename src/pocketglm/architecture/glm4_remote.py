"""GLM-4-9B in its first layout, that of ChatGLM2 with a tiktoken vocabulary (its own remote code)."""

from __future__ import annotations

from pocketglm.architecture import chatglm2_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.generation_defaults import GenerationDefaults
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint

END_OF_TEXT, USER, OBSERVATION = 151329, 151336, 151338
TOKENIZER = TokenizerQuirks(
    kind="tiktoken",
    file="tokenizer.model",
    appended_tokens=(
        "<|endoftext|>",
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    ),
    prefix_tokens=("[gMASK]", "<sop>"),
    pattern=(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)
"""After 151329 ranks: <|endoftext|> is 151329 and <|observation|> 151338."""


def build(checkpoint: Checkpoint) -> Architecture:
    defaults = GenerationDefaults(
        do_sample=True,
        temperature=0.8,
        top_p=0.8,
        max_length=128000,
        eos_token_ids=(END_OF_TEXT, USER, OBSERVATION),
        pad_token_id=END_OF_TEXT,
    )
    return chatglm2_layout.build_with_base(checkpoint, "glm4_remote", defaults, TOKENIZER)


def has_glm4_vocabulary(checkpoint: Checkpoint) -> bool:
    """The settings name the end token of the larger vocabulary, or have rows for it."""
    config = Config.of(checkpoint)
    rows = config.integer("padded_vocab_size", 0)
    return END_OF_TEXT in config.integers("eos_token_id") or rows > END_OF_TEXT


FAMILY = Family(
    name="glm4_remote",
    model_types=("chatglm",),
    examples=("GLM-4-9B", "GLM-4-9B-Chat", "GLM-4-9B-Chat-1M"),
    refused=("GLM-4V (vision_config)", "quantization_bit above 0"),
    build=build,
    accepts=has_glm4_vocabulary,
)
