"""What a conversion will do, decided before a weight is read.

Enters: a checkpoint and settings. Leaves: the final model settings and tensor table (after vocabulary
slimming), every file's layout, and the small files' text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketglm.architecture.model import Architecture
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.spec import ModelSpec, PrefixTokens
from pocketglm.architecture.table import TensorTable
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.convert.settings import ConvertSettings
from pocketglm.convert.tokenizer import chat_template_of, convert_tokenizer
from pocketglm.convert.tokenizer.slim import close_kept_tokens, read_kept_tokens
from pocketglm.errors import InputError
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import WeightLayout, plan_block, plan_head
from pocketglm.package.manifest import EMBEDDING_BYTES
from pocketglm.quantize.settings import HEAD

TOKENIZER_FILE = "tokenizer.json"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation.json"


@dataclass(frozen=True)
class ConversionPlan:
    """Everything about the package but its weights."""

    spec: ModelSpec
    table: TensorTable
    layouts: tuple[WeightLayout, ...]  # blocks, then the head
    embedding_dtype: str
    kept_rows: tuple[int, ...] | None  # rows of the checkpoint's vocabulary, or None for all
    texts: Mapping[str, str]  # small files: name -> content

    @property
    def embedding_bytes(self) -> int:
        return self.spec.vocab_size * self.spec.hidden_size * EMBEDDING_BYTES[self.embedding_dtype]

    @property
    def lossless(self) -> bool:
        """Whether every weight is stored as float32, which every source format converts to exactly."""
        entries = [entry for layout in self.layouts for entry in layout.entries]
        return all(e.format.bits == 32 for e in entries if isinstance(e, LinearEntry))

    @property
    def size(self) -> int:
        """Bytes of the package, manifest not counted."""
        texts = sum(len(text.encode()) for text in self.texts.values())
        return self.embedding_bytes + sum(layout.size for layout in self.layouts) + texts

    @property
    def elements(self) -> int:
        """Weights to convert, for the progress bar."""
        return sum(rule.size for rule in self.table.all_rules())


def plan_conversion(checkpoint: Checkpoint, settings: ConvertSettings) -> ConversionPlan:
    """Raises `CheckpointError`, `UnsupportedModelError` or `InputError` for what cannot be converted."""
    architecture = model_from_config(checkpoint)
    kept = _kept_rows(checkpoint, architecture, settings)
    spec, table, generation = architecture.spec, architecture.table, architecture.generation.to_dict()
    if kept is not None:
        spec, table = _slim(spec, table, kept)
        generation = _slim_generation(generation, kept)
    quantize = settings.quantize
    layouts = [plan_block(spec, block, quantize.format_for) for block in range(spec.num_blocks)]
    layouts.append(plan_head(spec, quantize.format_for))
    quantize.check_names(_linear_names(layouts))
    texts = {
        TOKENIZER_FILE: convert_tokenizer(checkpoint, architecture, kept),
        TEMPLATE_FILE: chat_template_of(checkpoint, architecture),
        GENERATION_FILE: json.dumps(generation, indent=1) + "\n",
    }
    return ConversionPlan(
        spec=spec,
        table=table,
        layouts=tuple(layouts),
        embedding_dtype="float32" if quantize.block.bits == 32 else "bfloat16",
        kept_rows=None if kept is None else tuple(kept),
        texts={name: text for name, text in texts.items() if text is not None},
    )


def fingerprint(checkpoint: Checkpoint, plan: ConversionPlan, settings: ConvertSettings) -> str:
    """Identifies a conversion: an unfinished one is only continued by one that is the same."""
    files = {info.file for info in checkpoint.tensors.values()}
    statuses = {str(file): file.stat() for file in files}
    data = {
        "files": sorted((name, s.st_size, s.st_mtime_ns) for name, s in statuses.items()),
        "spec": plan.spec.to_dict(),
        "layouts": [dataclasses.astuple(layout) for layout in plan.layouts],
        "texts": dict(plan.texts),
        "kept_rows": plan.kept_rows,
        "quantize": settings.quantize.to_dict(),
        "report": settings.report,
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _linear_names(layouts: Sequence[WeightLayout]) -> list[str]:
    """Full names of all linear layers, as rules for formats match them."""
    blocks = [
        f"block.{block}.{entry.name}"
        for block, layout in enumerate(layouts[:-1])
        for entry in layout.entries
        if isinstance(entry, LinearEntry)
    ]
    return [*blocks, HEAD]


def _kept_rows(
    checkpoint: Checkpoint, architecture: Architecture, settings: ConvertSettings
) -> Sequence[int] | None:
    if settings.keep_tokens is None:
        return None
    tokenizer = convert_tokenizer(checkpoint, architecture, None)
    if tokenizer is None:
        raise InputError(
            "--keep-tokens needs a tokenizer, and the checkpoint has none", where=checkpoint.path
        )
    spec, generation = architecture.spec, architecture.generation
    needed = {*generation.eos_token_ids, generation.bos_token_id, generation.pad_token_id} - {None}
    if spec.prefix_tokens is not None:
        needed |= set(dataclasses.astuple(spec.prefix_tokens))
    asked = read_kept_tokens(settings.keep_tokens, tokenizer)
    return close_kept_tokens(
        tokenizer, sorted({*asked, *(int(token) for token in needed if token is not None)})
    )


def _slim(spec: ModelSpec, table: TensorTable, kept: Sequence[int]) -> tuple[ModelSpec, TensorTable]:
    """Keep only the vocabulary rows `kept`, in the embedding and in the head."""
    new_id = {row: index for index, row in enumerate(kept)}
    tokens = spec.prefix_tokens
    if tokens is not None:
        tokens = PrefixTokens(new_id[tokens.mask], new_id[tokens.gmask], new_id[tokens.sop])
    head = tuple(rule.keep_rows(kept) if rule.name == "head.weight" else rule for rule in table.head)
    slim_spec = dataclasses.replace(spec, vocab_size=len(kept), prefix_tokens=tokens)
    return slim_spec, dataclasses.replace(table, embedding=table.embedding.keep_rows(kept), head=head)


def _slim_generation(generation: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    new_id = {row: index for index, row in enumerate(kept)}
    single = {
        name: new_id[generation[name]]
        for name in ("bos_token_id", "pad_token_id")
        if generation[name] is not None
    }
    return {**generation, **single, "eos_token_ids": [new_id[token] for token in generation["eos_token_ids"]]}
