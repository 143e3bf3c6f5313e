"""safetensors files: an 8-byte length, a JSON header, then the data.

Enters: an open file. Leaves: checked placements of its tensors. Format:
https://huggingface.co/docs/safetensors (the header is read here, so that rows can be read in place).
"""

from __future__ import annotations

import math
from typing import Any

from pocketglm.checkpoint.elements import PLAIN_TYPES
from pocketglm.checkpoint.files import DataFile, parse_json_object
from pocketglm.checkpoint.source import TensorInfo
from pocketglm.checkpoint.stored import Placement, check_no_overlap, check_shape
from pocketglm.errors import CheckpointError, UnsupportedModelError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""


def read_safetensors(data: DataFile) -> dict[str, Placement]:
    """Name -> placement of every tensor in the file, with sizes, bounds and overlaps checked."""
    length = int.from_bytes(data.read(0, 8, "the header length"), "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"header length is {length}, expected at most {MAX_HEADER_BYTES}: not a safetensors file?",
            where=data.path,
        )
    header = parse_json_object(data.read(8, length, "the header"), data.path, "the header")
    header.pop("__metadata__", None)
    placements = {name: _placement(data, name, entry, 8 + length) for name, entry in header.items()}
    check_no_overlap(placements.values(), data.path)
    return placements


def _placement(data: DataFile, name: str, entry: Any, base: int) -> Placement:
    if not isinstance(entry, dict):
        raise CheckpointError(f"tensor {name} must be described by an object", where=data.path)
    element = PLAIN_TYPES.get(str(entry.get("dtype")))
    if element is None:
        raise UnsupportedModelError(
            f"tensor {name} has the unknown type {entry.get('dtype')!r}", where=data.path
        )
    shape = check_shape(entry.get("shape"), name, data.path)
    begin, end = _offsets(data, name, entry.get("data_offsets"))
    expected = element.byte_size(math.prod(shape))
    if end - begin != expected:
        raise CheckpointError(
            f"tensor {name} of type {element.name} and shape {list(shape)} takes {expected} bytes, "
            f"but its offsets span {end - begin}",
            where=data.path,
        )
    if base + end > data.size:
        raise CheckpointError(
            f"tensor {name} is cut short: expected {expected} bytes, "
            f"found {min(expected, max(0, data.size - base - begin))}",
            where=data.path,
            hint="download the file again",
        )
    return Placement(TensorInfo(name, element.name, shape, expected, data.path), element, data, base + begin)


def _offsets(data: DataFile, name: str, offsets: Any) -> tuple[int, int]:
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(isinstance(value, int) and not isinstance(value, bool) for value in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise CheckpointError(f"tensor {name} has malformed data_offsets", where=data.path)
    return offsets[0], offsets[1]
