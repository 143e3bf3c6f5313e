"""Llama 1 to 3.2, SmolLM2 and every model in that layout (tied or not, with or without biases)."""

from __future__ import annotations

from pocketglm.architecture import llama_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.model import Architecture, Family
from pocketglm.checkpoint.source import Checkpoint


def build(checkpoint: Checkpoint) -> Architecture:
    config = Config.of(checkpoint)
    attention_bias = config.flag("attention_bias", False)
    spec = llama_layout.read_spec(
        config,
        checkpoint,
        "llama",
        qkv_bias=attention_bias,
        attention_output_bias=attention_bias,
        mlp_bias=config.flag("mlp_bias", False),
    )
    return llama_layout.finish(checkpoint, spec, llama_layout.read_table(spec, checkpoint))


FAMILY = Family(
    name="llama",
    model_types=("llama",),
    examples=("Llama 2, 3, 3.1 and 3.2 (text)", "SmolLM2", "TinyLlama", "Yi"),
    refused=("rotary scaling yarn, dynamic and longrope", "activations other than SiLU"),
    build=build,
)
