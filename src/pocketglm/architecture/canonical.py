"""A model that states its own spec, its tensors under canonical names: a package that was exported.

Enters: a checkpoint whose settings hold a `spec`. Leaves: that spec, checked, and a table that changes no
name.
"""

from __future__ import annotations

from dataclasses import fields

from pocketglm.architecture.config import Config
from pocketglm.architecture.generation_defaults import GenerationDefaults, read_generation
from pocketglm.architecture.layout import Sources, build_table
from pocketglm.architecture.model import Architecture, Family
from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import block_shapes
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint

SPARE_BIAS = r"(block\.\d+\.[\w.]+|head)\.bias"
"""Zeros that MNN wants behind every float32 layer."""


def build(checkpoint: Checkpoint) -> Architecture:
    config = Config.of(checkpoint)
    spec = ModelSpec.from_dict(config.values.get("spec", {}))

    def block(index: int) -> Sources:
        layers = {name.rpartition(".")[0] for name in block_shapes(spec)}
        return {layer: f"block.{index}.{layer}" for layer in layers}

    table = build_table(
        spec, checkpoint, embedding="embedding", block=block, norm="norm", head="head", ignored=SPARE_BIAS
    )
    template = config.text("chat_template", "") or None
    generation = read_generation(checkpoint, spec.vocab_size, _generation(config))
    return Architecture(spec, table, template, generation, TokenizerQuirks())


def _generation(config: Config) -> GenerationDefaults:
    """The exported package's sampling settings. Names that we do not know are left out."""
    section = config.section("generation")
    if section is None:
        return GenerationDefaults()
    known = {field.name for field in fields(GenerationDefaults)} - {"eos_token_ids"}
    settings = {name: value for name, value in section.values.items() if name in known}
    return GenerationDefaults(**settings, eos_token_ids=section.integers("eos_token_ids"))


FAMILY = Family(
    name="canonical",
    model_types=("pocketglm",),
    examples=("MNN-LLM directories made by `pocketglm export`",),
    refused=(),
    build=build,
)
