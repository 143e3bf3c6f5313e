"""GLM-4-9B and GLM-Edge as the transformers library stores them (`glm`)."""

from __future__ import annotations

from pocketglm.architecture import llama_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.rope import read_rotary
from pocketglm.architecture.spec import ModelSpec
from pocketglm.checkpoint.source import Checkpoint


def read_spec(checkpoint: Checkpoint, family: str, residual: str = "pre") -> ModelSpec:
    """The Llama decoder, with pairs of neighbours rotated in (by default) the first half of a head."""
    config = Config.of(checkpoint)
    head_dim = config.integer("head_dim", 128)
    max_context = config.integer("max_position_embeddings")
    return llama_layout.read_spec(
        config,
        checkpoint,
        family,
        head_dim=head_dim,
        rotary=read_rotary(config, head_dim, max_context, "interleaved", partial=0.5),
        qkv_bias=config.flag("attention_bias", True),
        residual=residual,
    )


def build(checkpoint: Checkpoint) -> Architecture:
    spec = read_spec(checkpoint, "glm")
    return llama_layout.finish(
        checkpoint, spec, llama_layout.read_table(spec, checkpoint, fused_gate_up=True)
    )


FAMILY = Family(
    name="glm",
    model_types=("glm",),
    examples=("GLM-4-9B-Chat-HF", "GLM-Edge (text)"),
    refused=("rotary scaling yarn, dynamic and longrope", "activations other than SiLU"),
    build=build,
)
