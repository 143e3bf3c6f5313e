"""A GGUF file with the benchmark's weights for llama.cpp: every matrix in Q4_0, the head too.

Q4_0 is a float16 scale and 16 bytes for 32 inputs: byte i holds input i in its low nibble and input
i + 16 in the high one. The embedding is float16, of which only single rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers.shape import NORM_EPS, ROPE_BASE, Shape
from peers.weights import Pattern, embedding, pattern, tiles

BLOCK_INPUTS, BLOCK_BYTES = 32, 18
ALIGNMENT = 32
NAMES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
Pieces = Callable[[], Iterator[NDArray[Any]]]


def write_gguf(path: Path, shape: Shape) -> Path:
    """Write the file. Tensors are streamed: memory stays below 100 MB."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    _write_settings(writer, shape)
    tensors = list(_tensors(shape))
    for name, rows, inputs, kind, _ in tensors:
        _announce(writer, name, rows, inputs, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with open(path, "ab") as file:
        file.write(bytes(-file.tell() % ALIGNMENT))
        for *_, pieces in tensors:
            for piece in pieces():
                file.write(np.ascontiguousarray(piece).data)
            file.write(bytes(-file.tell() % ALIGNMENT))
    return path


def _write_settings(writer: Any, shape: Shape) -> None:
    writer.add_context_length(shape.max_context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")


def _tensors(shape: Shape) -> Iterator[tuple[str, int, int, str, Pieces]]:
    """Name, rows, inputs (0: a vector), type, and what makes the bytes."""
    size = shape.hidden

    def rows() -> Iterator[NDArray[Any]]:
        return (piece.astype("<f2") for piece in embedding(shape.vocabulary, size))

    def ones() -> Iterator[NDArray[Any]]:
        return iter([np.ones(size, "<f4")])

    yield "token_embd.weight", shape.vocabulary, size, "f16", rows
    for index in range(shape.blocks):
        yield f"blk.{index}.attn_norm.weight", size, 0, "f32", ones
        yield f"blk.{index}.ffn_norm.weight", size, 0, "f32", ones
        for short, (out, inputs) in shape.block_matrices().items():
            head_dim = shape.head_dim if short in ("q", "k") else 0
            matrix = _matrix(f"block_{index:02d}.{short}", out, inputs, head_dim)
            yield f"blk.{index}.{NAMES[short]}.weight", out, inputs, "q4_0", matrix
    yield "output_norm.weight", size, 0, "f32", ones
    yield "output.weight", shape.vocabulary, size, "q4_0", _matrix("head", shape.vocabulary, size, 0)


def _matrix(name: str, rows: int, inputs: int, head_dim: int) -> Pieces:
    def pieces() -> Iterator[NDArray[Any]]:
        part = pattern(name, rows, inputs)
        return tiles(q4_0(part.interleaved(head_dim) if head_dim else part), rows)

    return pieces


def q4_0(part: Pattern) -> NDArray[np.uint8]:
    """Bytes of the rows, uint8 [p, in / 32 * 18]."""
    rows, inputs = part.codes.shape
    halves = part.codes.reshape(rows, inputs // BLOCK_INPUTS, 2, BLOCK_INPUTS // 2)
    encoded = np.empty((rows, inputs // BLOCK_INPUTS, BLOCK_BYTES), np.uint8)
    scales = np.repeat(part.scales.astype("<f2"), inputs // BLOCK_INPUTS // part.scales.shape[1], axis=1)
    encoded[:, :, :2] = scales.view(np.uint8).reshape(rows, -1, 2)
    encoded[:, :, 2:] = halves[:, :, 0] | (halves[:, :, 1] << 4)
    return encoded.reshape(rows, -1)


def _announce(writer: Any, name: str, rows: int, inputs: int, kind: str) -> None:
    from gguf import GGMLQuantizationType

    if kind == "q4_0":
        row_bytes = inputs // BLOCK_INPUTS * BLOCK_BYTES
        raw = GGMLQuantizationType.Q4_0
        writer.add_tensor_info(name, [rows, row_bytes], np.dtype(np.uint8), rows * row_bytes, raw)
    elif kind == "f16":
        writer.add_tensor_info(name, [rows, inputs], np.dtype(np.float16), 2 * rows * inputs)
    else:
        writer.add_tensor_info(name, [rows], np.dtype(np.float32), 4 * rows)
