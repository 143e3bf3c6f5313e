"""Byte-literal tests of the weight file encoding, against `docs/package-format.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from package.packages import TINY, write_package
from pocketglm.package.encoding import ALIGNMENT, LinearEntry, VectorEntry, linear_header
from pocketglm.package.layout import block_file, plan_block
from pocketglm.package.reader import Package
from pocketglm.package.writer import WeightFileWriter
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import QuantizedRows

INT4 = WeightFormat(4, 32)


def test_int4_header_bytes() -> None:
    entry = LinearEntry("x", (3, 64), 0, INT4, bias=False)
    table = bytes([0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, 0, 1, 2, 3, 4, 5, 6, 7])
    assert linear_header(entry) == b"\x02" + b"\x03\x00" + b"\x40\x00" + b"\x10" + table


def test_int8_header_has_256_entries_counted_as_zero() -> None:
    header = linear_header(LinearEntry("x", (3, 64), 0, WeightFormat(8, 32), bias=False))
    assert header[:6] == b"\x02\x03\x00\x40\x00\x00"
    assert header[6:] == bytes([*range(0x80, 0x100), *range(0x80)])


def test_header_of_many_rows_has_int32_sizes() -> None:
    header = linear_header(LinearEntry("head", (130528, 64), 0, INT4, bias=False))
    assert header[:10] == b"\x02" + (130528).to_bytes(4, "little") + (64).to_bytes(4, "little") + b"\x10"


def test_arrays_follow_one_another_from_an_aligned_start() -> None:
    layout = plan_block(TINY, 0, lambda *_: INT4)
    for entry in layout.entries:
        if isinstance(entry, LinearEntry):
            assert entry.codes_offset % ALIGNMENT == 0
            assert entry.codes_offset - entry.offset == 22
            assert entry.alpha_offset == entry.codes_offset + entry.shape[0] * entry.stored_inputs // 2
        else:
            assert entry.offset % ALIGNMENT == 0
    down = next(entry for entry in layout.entries if entry.name == "mlp.down")
    assert isinstance(down, LinearEntry)
    assert (down.shape, down.stored_inputs) == ((32, 44), 64)


def test_norm_bias_follows_its_weight_without_a_gap() -> None:
    from dataclasses import replace

    layout = plan_block(replace(TINY, norm="layernorm"), 0, lambda *_: INT4)
    weight, bias = (e for e in layout.entries if isinstance(e, VectorEntry) and e.name.startswith("mlp_norm"))
    assert bias.offset == weight.offset + 4 * TINY.hidden_size


def test_stored_bytes_of_one_row(tmp_path: Path) -> None:
    """Row 1 of a quantized layer stands exactly where the format says, nibbles high first."""
    layout = plan_block(TINY, 0, lambda *_: INT4)
    writer = WeightFileWriter(tmp_path, layout)
    codes = np.arange(16, dtype=np.uint8).reshape(1, 16)
    alpha = np.array([[[1.5, 0.25]]], np.float16)
    writer.write_quantized("attention.output", 1, QuantizedRows(codes, alpha))
    writer.finish()
    entry = writer.linear_entry("attention.output")
    data = (tmp_path / block_file(0)).read_bytes()
    assert data[entry.codes_offset + 16 : entry.codes_offset + 32] == bytes(range(16))
    assert data[entry.alpha_offset + 4 : entry.alpha_offset + 8] == b"\x00\x3e\x00\x34"


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_reader_gives_what_was_written(tmp_path: Path, bits: int) -> None:
    weight_format = WeightFormat(bits, 32)  # type: ignore[arg-type]
    write_package(tmp_path / "p", weight_format)
    rng = np.random.default_rng(7)
    norm = rng.standard_normal(32, np.float32)
    qkv = rng.standard_normal((64, 32), np.float32)
    bias = rng.standard_normal(64, np.float32)
    with Package.open(tmp_path / "p") as package:
        block = package.block(0)
        np.testing.assert_array_equal(block.vector("input_norm.weight"), norm)
        linear = block.linear("attention.qkv")
        np.testing.assert_array_equal(linear.bias, bias)
        tolerance = {32: 0.0, 16: 2e-3, 8: 2e-2, 4: 0.3}[bits]
        np.testing.assert_allclose(linear.dequantize(), qkv, atol=tolerance)
        np.testing.assert_array_equal(linear.dequantize(3, 5), linear.dequantize()[3:8])


def test_float32_layers_always_have_a_bias_array(tmp_path: Path) -> None:
    write_package(tmp_path / "p", WeightFormat(32))
    with Package.open(tmp_path / "p") as package:
        entry = package.head().entry("head")
        assert entry.bias_bytes == 4 * TINY.vocab_size
        assert package.head().linear("head").bias is None
        data = (package.path / "head.mnn.weight").read_bytes()
        assert data[entry.bias_offset : entry.end] == bytes(entry.bias_bytes)


def test_embedding_rows_are_read_by_id(tmp_path: Path) -> None:
    write_package(tmp_path / "p", WeightFormat(4))
    with Package.open(tmp_path / "p") as package:
        rows = package.embedding_rows([5, 0, 5])
        raw = np.fromfile(package.path / "embedding.bf16", "<u2").reshape(40, 32)
        expected = (raw[[5, 0, 5]].astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(rows, expected)


def test_fingerprint_is_of_what_logits_depend_on(tmp_path: Path) -> None:
    """Another template leaves it; another weight does not."""
    import json

    prints = []
    for name in ("a", "b"):
        write_package(tmp_path / name, WeightFormat(4))
        with Package.open(tmp_path / name) as package:
            prints.append(package.fingerprint)
    assert prints[0] == prints[1]
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    manifest["files"]["generation.json"]["sha256"] = "0" * 64
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with Package.open(tmp_path / "b") as package:
        assert package.fingerprint == prints[0]
    manifest["files"]["block_00.mnn.weight"]["sha256"] = "0" * 64
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with Package.open(tmp_path / "b") as package:
        assert package.fingerprint != prints[0]
