"""The weight files of an MNN-LLM directory: the package's bytes, and embedding rows that lose nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.mnn.graphs import need_mnn
from engine.tiny_packages import random_tensors, write_package
from pocketglm.engine.contract import Float32
from pocketglm.export.mnn_llm import export_mnn_llm
from pocketglm.export.mnn_llm.weights import plan_weights, write_weights
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import HEAD_FILE
from pocketglm.package.reader import Package

SPEC = SPECS["plain"]


def package_of(path: Path, embedding: Float32, weight_format: str = "int4-g32") -> Path:
    tensors = {**random_tensors(SPEC), "embedding.weight": embedding}
    return write_package(path, SPEC, tensors, FORMATS[weight_format])


def rows(kind: str) -> Float32:
    values = np.random.default_rng(1).normal(0, 1, (SPEC.vocab_size, SPEC.hidden_size)).astype(np.float32)
    if kind == "bfloat16":
        return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return values.astype(np.float16).astype(np.float32) if kind == "float16" else values


@pytest.mark.parametrize("form", ["bfloat16", "float16", "three-bfloat16"])
def test_the_narrowest_form_that_keeps_every_value(tmp_path: Path, form: str) -> None:
    need_mnn()
    path = package_of(tmp_path / "package", rows(form), "float32")
    with Package.open(path) as package:
        plan = plan_weights(package)
    assert plan.embedding == form
    result = export_mnn_llm(path, tmp_path / "exported")
    assert result.check.largest_error < 1e-5
    assert (result.path / "embeddings_bf16.bin").is_file() == (form != "float16")
    sizes = {"bfloat16": 2, "float16": 2, "three-bfloat16": 6}
    assert plan.embedding_bytes == SPEC.vocab_size * SPEC.hidden_size * sizes[form]


def test_three_parts_are_exact(tmp_path: Path) -> None:
    values = rows("float32")
    values[0, :4] = [0.0, -0.0, 3.4e38, 1.1754944e-38]
    with Package.open(package_of(tmp_path / "package", values)) as package:
        plan = plan_weights(package)
        (tmp_path / "out").mkdir()
        write_weights(package, plan, tmp_path / "out", lambda count: None)
    raw = np.fromfile(tmp_path / "out" / "embeddings_bf16.bin", "<u2").astype(np.uint32) << 16
    high, middle, low = np.split(raw.view(np.float32).reshape(SPEC.vocab_size, -1), 3, axis=1)
    np.testing.assert_array_equal((high + middle) + low, values)


def test_every_tensor_keeps_its_bytes(tmp_path: Path) -> None:
    counted = 0

    def count(size: int) -> None:
        nonlocal counted
        counted += size

    with Package.open(package_of(tmp_path / "package", rows("bfloat16"))) as package:
        plan = plan_weights(package)
        (tmp_path / "out").mkdir()
        write_weights(package, plan, tmp_path / "out", count)
        data = (tmp_path / "out" / "llm.mnn.weight").read_bytes()
        assert len(data) == plan.weight_bytes
        for placed in plan.files:
            source = (package.path / placed.name).read_bytes()
            assert data[placed.offset : placed.offset + placed.size] == source
            for entry, original in zip(placed.entries, package.manifest.weights[placed.name], strict=True):
                assert entry.offset == original.offset + placed.offset
                if isinstance(entry, LinearEntry):
                    assert entry.codes_offset % 64 == 0
        assert plan.files[-1].name == HEAD_FILE
        assert plan.tensors["block.2.mlp.down"].end < plan.tensors["head"].offset
    assert counted <= plan.size
