"""The list of families, and the way from a checkpoint to its `Architecture`.

A new family is one file and one line in `FAMILIES`. Order matters only among families that share a
`model_type`: the first whose `accepts` says yes is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from pocketglm.architecture import (
    canonical,
    chatglm,
    chatglm2,
    chatglm3,
    glm,
    glm4,
    glm4_remote,
    llama,
    mistral,
    qwen2,
    qwen3,
)
from pocketglm.architecture.config import Config
from pocketglm.architecture.layout import check_table
from pocketglm.architecture.model import Architecture, Family
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.errors import CheckpointError, InputError, UnsupportedModelError

FAMILIES: tuple[Family, ...] = (
    chatglm.FAMILY,
    glm4_remote.FAMILY,
    chatglm3.FAMILY,
    chatglm2.FAMILY,
    glm.FAMILY,
    glm4.FAMILY,
    llama.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
)


def model_from_config(checkpoint: Checkpoint) -> Architecture:
    """The architecture of a checkpoint, its table held against the checkpoint's tensors.

    Raises `UnsupportedModelError` for a family or setting that is not implemented, `CheckpointError`
    for settings or tensors that are malformed, missing, or do not belong together.
    """
    config = Config.of(checkpoint)
    family = find_family(checkpoint, config)
    try:
        architecture = family.build(checkpoint)
    except InputError as error:  # from the spec's own checks: here the input is the checkpoint
        raise CheckpointError(error.message, where=config.where, hint=error.hint) from error
    check_table(architecture.table, checkpoint)
    return architecture


def find_family(checkpoint: Checkpoint, config: Config) -> Family:
    """The registered family of a checkpoint."""
    model_type = config.text("model_type")
    for family in (*FAMILIES, canonical.FAMILY):
        if model_type in family.model_types and family.accepts(checkpoint):
            return family
    known = sorted({name for family in FAMILIES for name in family.model_types})
    raise UnsupportedModelError(
        f"the model type {model_type!r} is not supported",
        where=config.where,
        hint=f"supported model types: {', '.join(known)}",
    )


@dataclass(frozen=True)
class SupportedModel:
    """One row of the model table in the documentation."""

    family: str
    model_types: tuple[str, ...]
    examples: tuple[str, ...]
    refused: tuple[str, ...]


def supported_models() -> tuple[SupportedModel, ...]:
    """What can be converted and what is refused, for the generated model table."""
    return tuple(SupportedModel(f.name, f.model_types, f.examples, f.refused) for f in FAMILIES)
