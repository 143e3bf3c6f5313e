"""Qwen2 and Qwen2.5: the Llama layout with biases on q, k and v, and an optional sliding window."""

from __future__ import annotations

from pocketglm.architecture import llama_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.sliding_window import qwen_window
from pocketglm.checkpoint.source import Checkpoint


def build(checkpoint: Checkpoint) -> Architecture:
    config = Config.of(checkpoint)
    spec = llama_layout.read_spec(config, checkpoint, "qwen2", qkv_bias=True, **qwen_window(config))
    return llama_layout.finish(checkpoint, spec, llama_layout.read_table(spec, checkpoint))


FAMILY = Family(
    name="qwen2",
    model_types=("qwen2",),
    examples=("Qwen2 and Qwen2.5, 0.5B to 72B", "DeepSeek-R1-Distill-Qwen"),
    refused=(
        "mixture of experts",
        "rotary scaling yarn, dynamic and longrope",
        "alternating windows (layer_types)",
    ),
    build=build,
)
