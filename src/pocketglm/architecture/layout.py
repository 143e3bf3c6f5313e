"""Building and checking tensor tables.

Enters: a spec and, for each canonical layer, the checkpoint layers it is made of. Leaves: a
`TensorTable` whose shapes follow from the spec, and `check_table`, which holds it against the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import RowRange, TensorRule, TensorTable, block_shapes, head_shapes
from pocketglm.checkpoint.source import Checkpoint, TensorInfo
from pocketglm.errors import CheckpointError, UnsupportedModelError

Sources = Mapping[str, str | Sequence[RowRange]]
"""What each canonical layer is made of, weight and bias alike: the checkpoint's layer, or rows of
several of its layers. All names stand without `.weight` and `.bias`."""

QUANTIZED_DTYPE = re.compile(r"u?int\d+|[iu]\d+|bool|f8_.*", re.IGNORECASE)
SHOWN_NAMES = 8


def build_table(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    *,
    embedding: str,
    block: Callable[[int], Sources],
    norm: str,
    head: str,
    ignored: str | None = None,
    dropped_rows: int = 0,
) -> TensorTable:
    """Table of a model. Embedding and head start at row `dropped_rows`; `ignored` is a pattern of whole
    checkpoint names that are known and not needed."""
    if spec.num_blocks > len(checkpoint.tensors):
        raise CheckpointError(
            f"{spec.num_blocks} blocks in the settings, but only {len(checkpoint.tensors)} tensors",
            where=checkpoint.path,
        )
    shapes = block_shapes(spec)
    tokens = {
        "embedding": (RowRange(embedding, dropped_rows, spec.vocab_size),),
        "head": (RowRange(head, dropped_rows, spec.vocab_size),),
    }
    return TensorTable(
        embedding=_rule("embedding.weight", (spec.vocab_size, spec.hidden_size), tokens),
        blocks=tuple(_rules(shapes, block(index)) for index in range(spec.num_blocks)),
        head=_rules(head_shapes(spec), {**tokens, "norm": norm}),
        ignored=frozenset(name for name in checkpoint.tensors if ignored and re.fullmatch(ignored, name)),
    )


def _rules(shapes: Mapping[str, tuple[int, ...]], sources: Sources) -> tuple[TensorRule, ...]:
    return tuple(_rule(name, shape, sources) for name, shape in shapes.items())


def _rule(name: str, shape: tuple[int, ...], sources: Sources) -> TensorRule:
    layer, _, suffix = name.rpartition(".")
    found = sources[layer]
    parts = (RowRange(found, 0, shape[0]),) if isinstance(found, str) else found
    return TensorRule(
        name, shape, tuple(RowRange(f"{part.source}.{suffix}", part.start, part.count) for part in parts)
    )


def stacked(*parts: tuple[str, int]) -> tuple[RowRange, ...]:
    """Several checkpoint layers on top of one another, each given as (name, rows)."""
    return tuple(RowRange(source, 0, rows) for source, rows in parts)


def check_table(table: TensorTable, checkpoint: Checkpoint) -> None:
    """Hold a family's table (before any slimming) against the checkpoint's tensors.

    Raises `CheckpointError` for a missing tensor, a wrong shape, or a tensor that no rule reads and
    nobody knows: it would change the model if it were dropped. `UnsupportedModelError` for weights
    that are stored quantized.
    """
    expected = expected_shapes(table)
    for name, shape in expected.items():
        info = checkpoint.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"tensor {name} is missing, expected shape {list(shape)}",
                where=checkpoint.path,
                hint="the download may be incomplete, or config.json belongs to another model",
            )
        _check_tensor(info, shape, checkpoint.format)
    unknown = sorted(set(checkpoint.tensors) - set(expected) - table.ignored)
    if unknown:
        raise _unknown_tensors(unknown, checkpoint)


def expected_shapes(table: TensorTable) -> dict[str, tuple[int, ...]]:
    """Checkpoint tensor -> the shape it must have: every family reads its tensors to the last row."""
    rows: dict[str, int] = {}
    columns: dict[str, tuple[int, ...]] = {}
    for rule in table.all_rules():
        for piece in rule.pieces:
            rows[piece.source] = max(rows.get(piece.source, 0), piece.start + piece.count)
            columns[piece.source] = rule.shape[1:]
    return {name: (count, *columns[name]) for name, count in rows.items()}


def _check_tensor(info: TensorInfo, shape: tuple[int, ...], file_format: str) -> None:
    if file_format != "gguf" and QUANTIZED_DTYPE.fullmatch(info.dtype):
        raise UnsupportedModelError(
            f"tensor {info.name} is stored as {info.dtype}, expected 16-bit or longer floating point",
            where=info.file,
            hint="this checkpoint is quantized already; convert the original float checkpoint",
        )
    if tuple(info.shape) != shape:
        raise CheckpointError(
            f"tensor {info.name} has shape {list(info.shape)}, expected {list(shape)}",
            where=info.file,
            hint="config.json and the weights do not belong together",
        )


def _unknown_tensors(names: Sequence[str], checkpoint: Checkpoint) -> CheckpointError:
    shown = ", ".join(names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return CheckpointError(
        f"{len(names)} tensors that this architecture does not use: {shown}{more}",
        where=checkpoint.path,
        hint="they would be lost; check that config.json describes these weights",
    )
