"""Small packages with random weights, written with the package stage alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pocketglm.architecture.spec import ModelSpec, RotarySpec
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import WeightLayout, plan_block, plan_head
from pocketglm.package.manifest import EMBEDDING_FILES, MANIFEST_FILE, FileEntry, Manifest
from pocketglm.package.writer import WeightFileWriter, write_small_file
from pocketglm.quantize.bfloat16 import to_bfloat16
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import quantize_rows

TINY = ModelSpec(
    family="llama",
    vocab_size=40,
    hidden_size=32,
    num_blocks=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=44,
    max_context=64,
    norm="rmsnorm",
    norm_eps=1e-5,
    residual="pre",
    rotary=RotarySpec("half", 8, 10000.0),
    mlp="gated_silu",
    tied_head=True,
    qkv_bias=True,
)


def write_package(directory: Path, weight_format: WeightFormat, spec: ModelSpec = TINY) -> Manifest:
    """A whole package at `directory`; returns its manifest."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(7)
    layouts = [plan_block(spec, block, lambda *_: weight_format) for block in range(spec.num_blocks)]
    layouts.append(plan_head(spec, lambda *_: weight_format))
    files = {layout.file: _write_weights(directory, layout, rng) for layout in layouts}
    dtype = "float32" if weight_format.bits == 32 else "bfloat16"
    embedding = rng.standard_normal((spec.vocab_size, spec.hidden_size), np.float32)
    data = embedding.tobytes() if dtype == "float32" else to_bfloat16(embedding).tobytes()
    files[EMBEDDING_FILES[dtype]] = write_small_file(directory / EMBEDDING_FILES[dtype], data)
    files["generation.json"] = write_small_file(directory / "generation.json", b'{"eos_token_ids": [2]}')
    manifest = Manifest(spec, dtype, files, {layout.file: layout.entries for layout in layouts})
    write_small_file(directory / MANIFEST_FILE, manifest.to_json().encode())
    return manifest


def _write_weights(directory: Path, layout: WeightLayout, rng: np.random.Generator) -> FileEntry:
    writer = WeightFileWriter(directory, layout)
    for entry in layout.entries:
        if not isinstance(entry, LinearEntry):
            writer.write_vector(entry.name, rng.standard_normal(entry.shape[0], np.float32))
            continue
        rows = rng.standard_normal(entry.shape, np.float32)
        if entry.format.quantized:
            writer.write_quantized(entry.name, 0, quantize_rows(rows, entry.format))
        else:
            writer.write_floats(entry.name, 0, rows)
        if entry.bias:
            writer.write_bias(entry.name, rng.standard_normal(entry.shape[0], np.float32))
    return writer.finish()


def rewrite_manifest(directory: Path, data: dict[str, Any]) -> None:
    """Replace `manifest.json` by `data`."""
    (directory / MANIFEST_FILE).write_text(json.dumps(data), "utf-8")
