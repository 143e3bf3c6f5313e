"""A Hugging Face checkpoint with the benchmark's weights, in bfloat16: `config.json` and safetensors.

The safetensors format is a JSON header of names, types, shapes and places, then the bytes
(https://github.com/huggingface/safetensors#format). Every tensor is written as it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers.shape import NORM_EPS, ROPE_BASE, Shape
from peers.weights import embedding, pattern, tiles

NAMES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
Pieces = Callable[[], Iterator[NDArray[Any]]]


def write_safetensors(path: Path, shape: Shape) -> Path:
    """Write the checkpoint into the new folder `path`."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config(shape), indent=1))
    tensors = dict(_tensors(shape))
    header, place = {}, 0
    for name, (sizes, _) in tensors.items():
        end = place + 2 * int(np.prod(sizes))
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, pieces in tensors.values():
            for piece in pieces():
                file.write(piece.data)
    return path


def config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_hidden_layers": shape.blocks,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.max_context,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_BASE,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to nearest."""
    return ((np.ascontiguousarray(values).view(np.uint32) + 0x8000) >> 16).astype("<u2")


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[tuple[int, ...], Pieces]]]:
    def rows() -> Iterator[NDArray[Any]]:
        return (bfloat16(piece) for piece in embedding(shape.vocabulary, shape.hidden))

    def ones() -> Iterator[NDArray[Any]]:
        return iter([bfloat16(np.ones(shape.hidden, np.float32))])

    vector = (shape.hidden,)
    yield "model.embed_tokens.weight", ((shape.vocabulary, shape.hidden), rows)
    for index in range(shape.blocks):
        prefix = f"model.layers.{index}."
        yield f"{prefix}input_layernorm.weight", (vector, ones)
        yield f"{prefix}post_attention_layernorm.weight", (vector, ones)
        for short, sizes in shape.block_matrices().items():
            matrix = _matrix(f"block_{index:02d}.{short}", *sizes)
            yield f"{prefix}{NAMES[short]}.weight", (sizes, matrix)
    yield "model.norm.weight", (vector, ones)
    size = (shape.vocabulary, shape.hidden)
    yield "lm_head.weight", (size, _matrix("head", *size))


def _matrix(name: str, rows: int, inputs: int) -> Pieces:
    return lambda: tiles(bfloat16(pattern(name, rows, inputs).values()), rows)
