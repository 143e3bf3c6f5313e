"""ChatGLM3-6B: the layout of ChatGLM2 with role tokens.

`config.json` does not tell the two apart, so the tokenizer's files do: only ChatGLM3's know the role
tokens. Without them the names in the settings count, then the trained length
(8192 and, for the 128K version, 131072; ChatGLM2 has 32768).
"""

from __future__ import annotations

import dataclasses

from pocketglm.architecture import chatglm2, chatglm2_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.generation_defaults import GenerationDefaults
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.side_files import read_side_file
from pocketglm.checkpoint.source import Checkpoint

USER, OBSERVATION = 64795, 64797
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
TOKENIZER = dataclasses.replace(
    chatglm2.TOKENIZER, appended_tokens=(*chatglm2.TOKENIZER.appended_tokens, *ROLE_TOKENS)
)
"""After 64789 pieces: [MASK] is 64789, <|system|> 64794 and <|observation|> 64797."""


def build(checkpoint: Checkpoint) -> Architecture:
    defaults = GenerationDefaults(
        do_sample=True,
        temperature=0.8,
        top_p=0.8,
        max_length=8192,
        eos_token_ids=(2, USER, OBSERVATION),
        pad_token_id=0,
    )
    return chatglm2_layout.build_with_base(checkpoint, "chatglm3", defaults, TOKENIZER)


def has_roles(checkpoint: Checkpoint) -> bool:
    """Whether this is ChatGLM3, by the first evidence found."""
    config, settings = Config.of(checkpoint), read_side_file(checkpoint, "tokenizer_config.json")
    code = read_side_file(checkpoint, "tokenization_chatglm.py")  # read as text, never run
    if "<|user|>" in settings or "<|user|>" in code:
        return True
    names = f"{config.text('_name_or_path', '')} {settings}".lower()
    if code or "chatglm2" in names:
        return False
    return "chatglm3" in names or config.integer("seq_length", 0) in (8192, 131072)


FAMILY = Family(
    name="chatglm3",
    model_types=("chatglm",),
    examples=("ChatGLM3-6B", "ChatGLM3-6B-32K", "ChatGLM3-6B-128K"),
    refused=chatglm2.FAMILY.refused,
    build=build,
    accepts=has_roles,
)
