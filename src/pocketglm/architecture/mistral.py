"""Mistral 7B and its descendants in the Llama layout, with or without a sliding window."""

from __future__ import annotations

from pocketglm.architecture import llama_layout
from pocketglm.architecture.config import Config
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.sliding_window import read_window
from pocketglm.checkpoint.source import Checkpoint


def build(checkpoint: Checkpoint) -> Architecture:
    config = Config.of(checkpoint)
    config.accept("layer_types")
    spec = llama_layout.read_spec(config, checkpoint, "mistral", **read_window(config, first=0))
    return llama_layout.finish(checkpoint, spec, llama_layout.read_table(spec, checkpoint))


FAMILY = Family(
    name="mistral",
    model_types=("mistral",),
    examples=("Mistral-7B v0.1 to v0.3", "Mistral-Nemo"),
    refused=("alternating windows (layer_types)", "rotary scaling yarn, dynamic and longrope"),
    build=build,
)
