"""The GGUF header: metadata comes out as Python values, and no header can do harm."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest

from checkpoint.gguf_files import pair, raw_gguf, tensor, text, write_gguf
from pocketglm.checkpoint import open_checkpoint
from pocketglm.checkpoint.files import DataFile
from pocketglm.checkpoint.gguf_header import GGUFMetadata, GGUFTensor, read_header
from pocketglm.errors import CheckpointError

VALUES: dict[str, Any] = {
    "x.text": "日本語 🙂",
    "x.number": 4_000_000_000,
    "x.small": 1e-05,
    "x.flag": True,
    "x.texts": ["a", "", "ü"],
    "x.numbers": [1, -2, 3],
    "x.floats": [0.5, 1e-05],
    "x.flags": [True, False],
}


def header(tmp_path: Path, content: bytes) -> tuple[GGUFMetadata, list[GGUFTensor]]:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    data = DataFile(path)
    try:
        return read_header(data)
    finally:
        data.close()


def test_metadata_equals_what_was_written(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata=VALUES)
    with open_checkpoint(path) as checkpoint:
        metadata = checkpoint.metadata
        assert {key: metadata[key] for key in VALUES} == VALUES
        assert isinstance(metadata["x.flag"], bool)
        assert set(VALUES) < set(metadata)
        assert len(metadata) == len(list(metadata))
        assert "x.text" in metadata
        assert metadata.get("nothing") is None


def test_metadata_equals_the_package_s_reading(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata=VALUES)
    fields = gguf.GGUFReader(path).fields
    with open_checkpoint(path) as checkpoint:
        for key, field in fields.items():
            if not key.startswith("GGUF."):
                assert checkpoint.metadata[key] == pytest.approx(field.contents()) or key.endswith("texts")


SCALARS = [
    *((0, "B", 200), (1, "b", -3), (2, "H", 60000), (3, "h", -300), (4, "I", 1 << 31), (5, "i", -(1 << 31))),
    *((6, "f", 0.25), (7, "B", 1), (10, "Q", 1 << 63), (11, "q", -(1 << 63)), (12, "d", 1e300)),
]


@pytest.mark.parametrize(("kind", "layout", "value"), SCALARS)
def test_every_scalar_type_alone_and_in_arrays(tmp_path: Path, kind: int, layout: str, value: Any) -> None:
    raw = struct.pack(f"<{layout}", value)
    array = struct.pack("<IQ", kind, 2) + raw + raw
    path = tmp_path / "m.gguf"
    path.write_bytes(raw_gguf([pair("one", kind, raw), pair("two", 9, array)], []))
    data = DataFile(path)
    metadata, _ = read_header(data)
    assert (metadata["one"], metadata["two"]) == (value, [value, value])
    assert metadata.is_array("two")
    assert not metadata.is_array("one")
    data.close()


def test_version_2_is_read(tmp_path: Path) -> None:
    metadata, tensors = header(
        tmp_path, raw_gguf([pair("a", 8, text("b"))], [tensor("t", (3, 2))], version=2)
    )
    assert metadata["a"] == "b"
    assert tensors == [GGUFTensor("t", (2, 3), 0, 96)]


def test_alignment_moves_the_data(tmp_path: Path) -> None:
    pairs = [pair("general.alignment", 4, struct.pack("<I", 256))]
    _, (found,) = header(tmp_path, raw_gguf(pairs, [tensor("t", (2,), offset=512)]))
    assert found.offset == 256 + 512


ONE = [pair("a", 4, bytes(4))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the magic number is cut short"),
        (b"GGU", "the magic number is cut short"),
        (b"GGML" + bytes(40), "the magic number is wrong"),
        (b"GGUF" + bytes(3), "the header is cut short"),
        (raw_gguf([], [], version=1), "is GGUF version 1, expected 2 or 3"),
        (raw_gguf([], [], version=4), "is GGUF version 4, expected 2 or 3"),
        (raw_gguf([], [], version=3 << 24), "big-endian"),
        (raw_gguf(ONE, [], counts=(0, 1 << 63)), "claims 9223372036854775808 metadata entries"),
        (raw_gguf(ONE, [], counts=(1 << 63, 1)), "claims 9223372036854775808 tensors"),
        (raw_gguf(ONE, [], counts=(1, 1)), "claims 1 tensors|cut short"),
        (raw_gguf([*ONE, *ONE], []), "the metadata key a appears twice"),
        (
            raw_gguf([struct.pack("<Q", 1 << 60) + bytes(40)], []),
            "a metadata key is 1152921504606846976 bytes long",
        ),
        (raw_gguf([struct.pack("<Q", 60000) + bytes(40)], []), "a metadata key is cut short"),
        (raw_gguf([text(b"\xff\xfe") + bytes(40)], []), "a metadata key is not UTF-8"),
        (raw_gguf([pair("a", 8, text(b"\xff"))], []), "metadata a is not UTF-8"),
        (raw_gguf([pair("a", 8, struct.pack("<Q", 1 << 62))], []), "metadata a is cut short or too long"),
        (raw_gguf([pair("a", 13, bytes(8))], []), "metadata a has the unknown value type 13"),
        (
            raw_gguf([pair("a", 9, struct.pack("<IQ", 9, 1) + bytes(16))], []),
            "metadata a has the unknown value type 9",
        ),
        (
            raw_gguf([pair("a", 9, struct.pack("<IQ", 8, 1 << 61))], []),
            "claims 2305843009213693952 strings in metadata a",
        ),
        (raw_gguf([pair("a", 9, struct.pack("<IQ", 4, 1 << 61))], []), "metadata a is cut short"),
        (raw_gguf([pair("a", 9, struct.pack("<IQQ", 8, 1, 1 << 61))], []), "metadata a is cut short"),
        (
            raw_gguf([], [text("t") + struct.pack("<I", 1 << 31) + bytes(32)]),
            "tensor t has 2147483648 dimensions",
        ),
        (raw_gguf([], [tensor("t", (1 << 63,))]), "tensor t has a malformed shape"),
        (raw_gguf([], [tensor("t", (1 << 50, 1 << 50, 0))]), "impossible shape"),
        (
            raw_gguf([], [tensor("t", (2,), offset=8)], bytes(64)),
            "tensor t lies at offset 8, expected a multiple of 32",
        ),
        (raw_gguf([pair("general.alignment", 4, struct.pack("<I", 0))], []), "must be a power of two"),
        (raw_gguf([pair("general.alignment", 4, struct.pack("<I", 48))], []), "must be a power of two"),
        (raw_gguf([pair("general.alignment", 4, struct.pack("<I", 1 << 31))], []), "must be a power of two"),
        (raw_gguf([pair("general.alignment", 8, text("32"))], []), "must be a power of two"),
    ],
)
def test_hostile_headers_are_errors(tmp_path: Path, content: bytes, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=message) as caught:
        header(tmp_path, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert caught.value.where == str(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("tensors", "size", "message"),
    [
        ([tensor("t", (16, 16))], 1023, "tensor t is cut short: expected 1024 bytes, found 1023"),
        ([tensor("t", (16,), offset=1 << 62)], 64, "tensor t is cut short: expected 64 bytes, found 0"),
        ([tensor("t", (16,)), tensor("u", (16,), offset=32)], 128, "tensors t and u overlap"),
        ([tensor("t", (8,)), tensor("t", (8,), offset=32)], 128, "tensor t appears twice"),
        ([tensor("t", (8,), code=999)], 128, "tensor t has the unknown type code 999"),
        ([tensor("t", (8,), code=4)], 128, "tensor t has the unknown type code 4"),
        (
            [tensor("t", (40, 2), code=8)],
            128,
            "tensor t has rows of 40 elements, expected a multiple of 32 for Q8_0",
        ),
        ([tensor("t", (8, 2))], 128, r"tensor token_embd\.weight is missing"),
        ([tensor("token_embd.weight", (8,))], 128, r"tensor token_embd\.weight is missing or not a matrix"),
    ],
)
def test_impossible_tensors_are_errors(tmp_path: Path, tensors: list[bytes], size: int, message: str) -> None:
    names = [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
    ]
    pairs = [pair(f"llama.{name}", 4, struct.pack("<I", 4)) for name in names]
    pairs += [pair("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5))]
    pairs += [pair("general.architecture", 8, text("llama"))]
    (tmp_path / "m.gguf").write_bytes(raw_gguf(pairs, tensors, bytes(size)))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "m.gguf")


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_short_is_an_error(tmp_path: Path, keep: float) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match="cut short"):
        open_checkpoint(path)
