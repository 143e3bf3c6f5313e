"""GGUF files, presented like the Hugging Face checkpoint they were made from.

Enters: a path. Leaves: an open checkpoint with translated names, shapes and settings. The quantized
types are expanded by the `gguf` package, a chunk of rows at a time.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pocketglm.checkpoint.elements import PLAIN_TYPES, Decode, ElementType, RawBytes
from pocketglm.checkpoint.files import DataFile, opened_files
from pocketglm.checkpoint.gguf_config import read_config
from pocketglm.checkpoint.gguf_header import GGUFTensor, read_header
from pocketglm.checkpoint.gguf_names import NAME_TABLES
from pocketglm.checkpoint.gguf_rotary import recognise_factors
from pocketglm.checkpoint.source import Float32, TensorInfo
from pocketglm.checkpoint.stored import Placement, StoredCheckpoint, check_no_overlap, read_rows
from pocketglm.errors import CheckpointError, UnsupportedModelError

ROTARY_FACTORS = "rope_freqs.weight"
MAX_ROTARY_FACTORS = 4096  # half a head, and no head is that long

_PLAIN_CODES = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
"""GGML type codes of plain numbers (ggml.h)."""


def open_gguf(path: Path, named: Path) -> StoredCheckpoint:
    """Open the GGUF file `path`; `named` is what the user gave (the file or its directory)."""
    with opened_files() as files:
        data = files.open(path)
        metadata, tensors = read_header(data)
        placements = _read_placements(data, tensors)
        shapes = {name: placement.info.shape for name, placement in placements.items()}
        config = read_config(metadata, shapes, path)
        if factors := placements.pop(ROTARY_FACTORS, None):
            config |= _rotary_scaling(factors, config)
        renamed = _rename(placements, str(metadata["general.architecture"]), path)
        return StoredCheckpoint("gguf", named, path.parent, config, renamed, files, metadata)


def _read_placements(data: DataFile, tensors: list[GGUFTensor]) -> dict[str, Placement]:
    placements: dict[str, Placement] = {}
    for tensor in tensors:
        if tensor.name in placements:
            raise CheckpointError(f"tensor {tensor.name} appears twice", where=data.path)
        placements[tensor.name] = _placement(data, tensor)
    check_no_overlap(placements.values(), data.path)
    return placements


def _placement(data: DataFile, tensor: GGUFTensor) -> Placement:
    element = _element_type(tensor.type_code)
    if element is None:
        raise UnsupportedModelError(
            f"tensor {tensor.name} has the unknown type code {tensor.type_code}", where=data.path
        )
    width = tensor.shape[-1] if tensor.shape else 1
    if width % element.block:
        raise CheckpointError(
            f"tensor {tensor.name} has rows of {width} elements, expected a multiple of {element.block} "
            f"for {element.name}",
            where=data.path,
        )
    size = element.byte_size(math.prod(tensor.shape))
    if tensor.offset + size > data.size:
        raise CheckpointError(
            f"tensor {tensor.name} is cut short: expected {size} bytes, "
            f"found {max(0, data.size - tensor.offset)}",
            where=data.path,
            hint="download the file again",
        )
    info = TensorInfo(tensor.name, element.name, tensor.shape, size, data.path)
    return Placement(info, element, data, tensor.offset)


@lru_cache(maxsize=64)
def _element_type(code: int) -> ElementType | None:
    """The element type of a GGML type code; None for a code that the `gguf` package does not know."""
    if code in _PLAIN_CODES:
        return PLAIN_TYPES[_PLAIN_CODES[code]]
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(code)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        return None
    return ElementType(kind.name, block, block_bytes, _block_decoder(kind, block_bytes))


def _block_decoder(kind: Any, block_bytes: int) -> Decode | None:
    """Expansion of a quantized type, or None where the `gguf` package can only write it."""
    from gguf.quants import dequantize

    def decode(raw: RawBytes, out: Float32) -> None:
        with np.errstate(all="ignore"):  # damaged scales give infinities, as they would in llama.cpp
            out[:] = dequantize(raw, kind)

    try:
        dequantize(np.zeros(block_bytes, np.uint8), kind)
    except NotImplementedError:
        return None
    return decode


def _rename(placements: dict[str, Placement], architecture: str, path: Path) -> dict[str, Placement]:
    table = NAME_TABLES[architecture]
    renamed: dict[str, Placement] = {}
    for name, placement in placements.items():
        target, info = table.translate(name), placement.info
        if target in renamed:
            raise CheckpointError(f"two tensors stand for {target}", where=path)
        info = TensorInfo(target, info.dtype, info.shape, info.size, info.file)
        renamed[target] = Placement(info, placement.element, placement.data, placement.offset)
    return renamed


def _rotary_scaling(factors: Placement, config: dict[str, Any]) -> dict[str, Any]:
    """The setting from which the stored rotary factors come."""
    base = config.get("rope_theta", config.get("rope_ratio", 1) * 10000)
    count = math.prod(factors.info.shape)
    if len(factors.info.shape) != 1 or count > MAX_ROTARY_FACTORS:
        raise CheckpointError(f"tensor {ROTARY_FACTORS} is not a short vector", where=factors.info.file)
    scaling = recognise_factors(read_rows(factors, 0, count), float(base), factors.info.file)
    return {"rope_scaling": scaling} if scaling else {}
