"""The layout of a weight file: every tensor's place, known from shapes and formats alone.

Enters: canonical names, shapes and formats. Leaves: entries with offsets and the file's exact size,
so that disk space can be checked, and rows written in any order, before a single weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import block_shapes, head_shapes
from pocketglm.package.encoding import LinearEntry, TensorEntry, VectorEntry, align
from pocketglm.quantize.formats import WeightFormat

FormatOf = Callable[[str, tuple[int, int]], WeightFormat]
"""(full tensor name such as `block.3.attention.qkv` or `head`, [out, in]) -> its format."""

HEAD_FILE = "head.mnn.weight"


def block_file(block: int) -> str:
    return f"block_{block:02d}.mnn.weight"


@dataclass(frozen=True)
class WeightLayout:
    """All tensors of one weight file, in order of use, and its size in bytes."""

    file: str
    entries: tuple[TensorEntry, ...]
    size: int


def plan_block(spec: ModelSpec, block: int, format_of: FormatOf) -> WeightLayout:
    """Layout of one block's file."""
    return _plan(
        block_file(block), block_shapes(spec), lambda name, shape: format_of(f"block.{block}.{name}", shape)
    )


def plan_head(spec: ModelSpec, format_of: FormatOf) -> WeightLayout:
    """Layout of the head's file: final norm and output projection."""
    return _plan(HEAD_FILE, head_shapes(spec), format_of)


def _plan(file: str, shapes: Mapping[str, tuple[int, ...]], format_of: FormatOf) -> WeightLayout:
    entries: list[TensorEntry] = []
    offset = 0
    for name, shape in shapes.items():
        stem, part = name.rsplit(".", 1)
        if len(shape) == 2:
            entry: TensorEntry = _place_linear(stem, shape, offset, format_of, f"{stem}.bias" in shapes)
        elif part == "bias" and isinstance(entries[-1], LinearEntry):
            continue  # stored with its linear layer
        else:
            # A norm's bias follows its weight without a gap: MNN reads both from one offset.
            entry = VectorEntry(name, (shape[0],), offset if part == "bias" else align(offset))
        entries.append(entry)
        offset = entry.end
    return WeightLayout(file, tuple(entries), offset)


def _place_linear(
    name: str, shape: tuple[int, ...], offset: int, format_of: FormatOf, bias: bool
) -> LinearEntry:
    """The first place at or after `offset` where the header ends on an aligned boundary."""
    weight_format = format_of(name, (shape[0], shape[1]))
    header = LinearEntry(name, (shape[0], shape[1]), 0, weight_format, bias).header_bytes
    return LinearEntry(name, (shape[0], shape[1]), align(offset + header) - header, weight_format, bias)
