"""A PocketGLM package with the benchmark's weights.

Enters: a shape, or ChatGLM-6B's own settings. Leaves: a package of int4 in groups of 64, the head too,
as `pocketglm convert --head-bits 4` lays it out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from peers.shape import NORM_EPS, ROPE_BASE, Shape
from peers.weights import Pattern, embedding, pattern, tiles
from pocketglm.architecture.spec import ModelSpec, PrefixTokens, RotarySpec
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import WeightLayout, plan_block, plan_head
from pocketglm.package.manifest import EMBEDDING_FILES, MANIFEST_FILE, FileEntry, Manifest
from pocketglm.package.writer import FileWriter, WeightFileWriter, write_small_file
from pocketglm.quantize.formats import WeightFormat

FORMAT = WeightFormat(4, 64)
PARTS = {
    "attention.qkv": ("q", "k", "v"),
    "attention.output": ("o",),
    "mlp.gate_up": ("gate", "up"),
    "mlp.down": ("down",),
}


def _sizes(shape: Shape) -> dict[str, Any]:
    """What every model of this shape has."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_blocks": shape.blocks,
        "num_heads": shape.heads,
        "head_dim": shape.head_dim,
        "max_context": shape.max_context,
        "tied_head": False,
    }


def llama_spec(shape: Shape) -> ModelSpec:
    return ModelSpec(
        family="llama",
        **_sizes(shape),
        num_kv_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        norm="rmsnorm",
        norm_eps=NORM_EPS,
        residual="pre",
        rotary=RotarySpec("half", shape.head_dim, ROPE_BASE),
        mlp="gated_silu",
    )


def chatglm_spec(shape: Shape) -> ModelSpec:
    """ChatGLM-6B's decoder with the hidden size, heads, blocks and vocabulary of `shape`."""
    base = shape.vocabulary - 528 if shape.vocabulary > 2000 else shape.vocabulary - 8
    return ModelSpec(
        family="chatglm",
        **_sizes(shape),
        num_kv_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        norm="layernorm",
        norm_eps=1e-5,
        residual="normed_alpha",
        residual_alpha=math.sqrt(2 * 28),
        rotary=RotarySpec("half", shape.head_dim, 10000.0, axes=2, frequency_dtype="float16"),
        mlp="gelu_tanh",
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        positions="glm_2d",
        prefix_tokens=PrefixTokens(mask=base, gmask=base + 1, sop=base + 4),
    )


def write_package(path: Path, spec: ModelSpec) -> Path:
    """Write the package into the new folder `path`."""
    path.mkdir(parents=True)
    layouts = [plan_block(spec, i, lambda name, shape: FORMAT) for i in range(spec.num_blocks)]
    layouts.append(plan_head(spec, lambda name, shape: FORMAT))
    files = {layout.file: _write_layout(path, layout, spec) for layout in layouts}
    files[EMBEDDING_FILES["bfloat16"]] = _write_embedding(path, spec)
    manifest = Manifest(spec, "bfloat16", files, {layout.file: layout.entries for layout in layouts})
    write_small_file(path / MANIFEST_FILE, manifest.to_json().encode())
    return path


def _write_layout(path: Path, layout: WeightLayout, spec: ModelSpec) -> FileEntry:
    writer = WeightFileWriter(path, layout)
    stem = layout.file.partition(".")[0]
    for entry in layout.entries:
        if not isinstance(entry, LinearEntry):
            ones = entry.name.endswith(".weight")
            writer.write_vector(entry.name, np.full(entry.shape, float(ones), np.float32))
            continue
        start = 0
        for part in _parts(stem, entry, spec):
            _write_rows(writer, entry, start, part)
            start += part.rows
    return writer.finish()


def _parts(stem: str, entry: LinearEntry, spec: ModelSpec) -> list[Pattern]:
    """The matrices that one linear layer of a package is made of, from top to bottom."""
    names = PARTS.get(entry.name, (entry.name,))
    rows = {"q": spec.q_size, "k": spec.kv_size, "v": spec.kv_size}
    each = entry.shape[0] // len(names)
    prefix = "" if stem == "head" else f"{stem}."
    return [pattern(prefix + name, rows.get(name, each), entry.shape[1]) for name in names]


def _write_rows(writer: WeightFileWriter, entry: LinearEntry, start: int, part: Pattern) -> None:
    packed = (part.codes[:, ::2] << 4) | part.codes[:, 1::2]
    alpha = np.stack([np.zeros_like(part.scales), part.scales], axis=2).reshape(len(part.scales), -1)
    place = entry.codes_offset + start * packed.shape[1]
    for piece in tiles(packed, part.rows):
        writer.write(place, piece)
        place += piece.nbytes
    place = entry.alpha_offset + start * alpha.shape[1] * 2
    for piece in tiles(alpha, part.rows):
        writer.write(place, piece)
        place += piece.nbytes


def _write_embedding(path: Path, spec: ModelSpec) -> FileEntry:
    writer = FileWriter(path / EMBEDDING_FILES["bfloat16"], 2 * spec.vocab_size * spec.hidden_size)
    place = 0
    for piece in embedding(spec.vocab_size, spec.hidden_size):
        upper = (piece.view(np.uint32) >> 16).astype("<u2")
        writer.write(place, upper)
        place += upper.nbytes
    return writer.finish()
