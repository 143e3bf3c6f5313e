"""Qwen3 (dense): Qwen2 with an RMS norm over each head of q and k in place of the biases."""

from __future__ import annotations

from pocketglm.architecture import llama_layout, qwen2
from pocketglm.architecture.config import Config
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.sliding_window import qwen_window
from pocketglm.checkpoint.source import Checkpoint


def build(checkpoint: Checkpoint) -> Architecture:
    config = Config.of(checkpoint)
    attention_bias = config.flag("attention_bias", False)
    spec = llama_layout.read_spec(
        config,
        checkpoint,
        "qwen3",
        head_dim=config.integer("head_dim", 128),
        qk_norm=True,
        qkv_bias=attention_bias,
        attention_output_bias=attention_bias,
        **qwen_window(config),
    )
    return llama_layout.finish(checkpoint, spec, llama_layout.read_table(spec, checkpoint))


FAMILY = Family(
    name="qwen3",
    model_types=("qwen3",),
    examples=("Qwen3, 0.6B to 32B",),
    refused=qwen2.FAMILY.refused,
    build=build,
)
