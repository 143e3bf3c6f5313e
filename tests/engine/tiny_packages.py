"""Small packages for engine tests, written through the package stage from given or random tensors.

Enters: a spec, a weight format and canonical tensors (or a seed). Leaves: a package directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import block_shapes, head_shapes
from pocketglm.engine.contract import Float32
from pocketglm.package.encoding import LinearEntry, VectorEntry
from pocketglm.package.layout import WeightLayout, plan_block, plan_head
from pocketglm.package.manifest import EMBEDDING_FILES, MANIFEST_FILE, FileEntry, Manifest
from pocketglm.package.reader import Package
from pocketglm.package.writer import WeightFileWriter, write_small_file
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import quantize_rows

Tensors = Mapping[str, Float32]
"""Canonical names, those of a block prefixed with `block.N.`, and `embedding.weight`."""


def random_tensors(spec: ModelSpec, seed: int = 0) -> dict[str, Float32]:
    """Seeded weights of a size that keeps hidden states of order one; norm weights are near one."""
    generator = np.random.default_rng(seed)
    shapes = {"embedding.weight": (spec.vocab_size, spec.hidden_size), **head_shapes(spec)}
    for index in range(spec.num_blocks):
        shapes |= {f"block.{index}.{name}": shape for name, shape in block_shapes(spec).items()}
    tensors = {}
    for name, shape in shapes.items():
        is_norm = len(shape) == 1 and name.endswith(".weight")
        spread = 1.0 if name == "embedding.weight" else shape[-1] ** -0.5 if len(shape) == 2 else 0.1
        tensors[name] = (generator.normal(0, spread, shape) + is_norm).astype(np.float32)
    return tensors


def write_package(path: Path, spec: ModelSpec, tensors: Tensors, weight_format: WeightFormat) -> Path:
    """A package of `tensors`, all linear layers in one format, the embedding in float32."""
    path.mkdir()
    layouts = [plan_block(spec, i, lambda name, shape: weight_format) for i in range(spec.num_blocks)]
    layouts.append(plan_head(spec, lambda name, shape: weight_format))
    prefixes = [*(f"block.{i}." for i in range(spec.num_blocks)), ""]
    files = {
        layout.file: _write_weights(path, layout, tensors, prefix)
        for layout, prefix in zip(layouts, prefixes, strict=True)
    }
    embedding = EMBEDDING_FILES["float32"]
    data = tensors["embedding.weight"].astype("<f4").tobytes()
    files[embedding] = write_small_file(path / embedding, data)
    manifest = Manifest(spec, "float32", files, {layout.file: layout.entries for layout in layouts})
    write_small_file(path / MANIFEST_FILE, manifest.to_json().encode())
    return path


def dequantized_tensors(package: Package) -> dict[str, Float32]:
    """The float32 values that a package stands for, under the same names."""
    spec = package.spec
    tensors = {"embedding.weight": package.embedding_rows(range(spec.vocab_size))}
    files = {f"block.{index}.": package.block(index) for index in range(spec.num_blocks)}
    for prefix, file in (*files.items(), ("", package.head())):
        tensors |= {prefix + name: file.vector(name) for name in file.vectors}
        for name in file.linears:
            stored = file.linear(name)
            tensors[f"{prefix}{name}.weight"] = stored.dequantize()
            if stored.bias is not None:
                tensors[f"{prefix}{name}.bias"] = stored.bias
    return tensors


def _write_weights(path: Path, layout: WeightLayout, tensors: Tensors, prefix: str) -> FileEntry:
    writer = WeightFileWriter(path, layout)
    for entry in layout.entries:
        if isinstance(entry, VectorEntry):
            writer.write_vector(entry.name, tensors[prefix + entry.name])
            continue
        _write_linear(writer, entry, tensors[f"{prefix}{entry.name}.weight"])
        if entry.bias:
            writer.write_bias(entry.name, tensors[f"{prefix}{entry.name}.bias"])
    return writer.finish()


def _write_linear(writer: WeightFileWriter, entry: LinearEntry, weight: Float32) -> None:
    if entry.format.quantized:
        writer.write_quantized(entry.name, 0, quantize_rows(weight, entry.format))
    else:
        writer.write_floats(entry.name, 0, weight)
