"""The GLM-4-0414 series (`glm4`): GLM with a norm after attention and after the MLP as well."""

from __future__ import annotations

from pocketglm.architecture import glm, llama_layout
from pocketglm.architecture.model import Architecture, Family
from pocketglm.checkpoint.source import Checkpoint

NORMS = {
    **llama_layout.PRE_NORMS,
    "attention_post_norm": "post_self_attn_layernorm",
    "mlp_post_norm": "post_mlp_layernorm",
}


def build(checkpoint: Checkpoint) -> Architecture:
    spec = glm.read_spec(checkpoint, "glm4", residual="sandwich")
    table = llama_layout.read_table(spec, checkpoint, NORMS, fused_gate_up=True)
    return llama_layout.finish(checkpoint, spec, table)


FAMILY = Family(
    name="glm4",
    model_types=("glm4",),
    examples=("GLM-4-9B-0414", "GLM-4-32B-0414", "GLM-Z1-9B-0414"),
    refused=glm.FAMILY.refused,
    build=build,
)
