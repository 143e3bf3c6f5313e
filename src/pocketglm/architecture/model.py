"""What an architecture file leaves behind: `Architecture`, and how a family registers itself.

Enters: a checkpoint. Leaves: everything the converter needs to know about a model that the tensors
themselves do not say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pocketglm.architecture.generation_defaults import GenerationDefaults
from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import TensorTable
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint


@dataclass(frozen=True)
class Architecture:
    """One model, ready to convert.

    `template` is a Jinja chat template of ours, or None where the checkpoint's own is used. A rendered
    template is the whole prompt, [gMASK] and <sop> included: encode it without adding special tokens.
    """

    spec: ModelSpec
    table: TensorTable
    template: str | None
    generation: GenerationDefaults
    tokenizer: TokenizerQuirks


@dataclass(frozen=True)
class Family:
    """One entry of the registry.

    `accepts` decides between families that share a `model_type`; the first that accepts is taken.
    `build` reads the checkpoint's settings and raises `CheckpointError` or `UnsupportedModelError`.
    """

    name: str
    model_types: tuple[str, ...]
    examples: tuple[str, ...]
    refused: tuple[str, ...]
    build: Callable[[Checkpoint], Architecture]
    accepts: Callable[[Checkpoint], bool] = lambda checkpoint: True
