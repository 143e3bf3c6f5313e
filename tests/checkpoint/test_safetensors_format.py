"""safetensors files, against files that the safetensors library writes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError

CONFIG = '{"model_type": "llama"}'


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file made by hand, with its config.json."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    (path.parent / "config.json").write_text(CONFIG)
    return path


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8])
def test_values_equal_the_library_s(tmp_path: Path, dtype: Any) -> None:
    source = (np.random.default_rng(1).standard_normal((37, 11)) * 50).astype(dtype)
    save_file(
        {"weight": source, "vector": source[0], "cube": source.reshape(37, 1, 11)}, tmp_path / "m.safetensors"
    )
    (tmp_path / "config.json").write_text(CONFIG)
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.directory == tmp_path
        assert checkpoint.config == {"model_type": "llama"}
        assert checkpoint.read("weight").tobytes() == source.astype(np.float32).tobytes()
        assert checkpoint.read("weight", 5, 7).tobytes() == source[5:12].astype(np.float32).tobytes()
        assert checkpoint.read("weight", 36).tolist() == source[36:].astype(np.float32).tolist()
        assert checkpoint.read("vector", 3, 4).tolist() == source[0, 3:7].astype(np.float32).tolist()
        assert checkpoint.read("cube", 2, 2).shape == (2, 1, 11)
        info = checkpoint.tensors["weight"]
        assert (info.shape, info.size, info.file) == ((37, 11), source.nbytes, tmp_path / "m.safetensors")


def test_bfloat16_scalars_and_empty_tensors(tmp_path: Path) -> None:
    weight = torch.randn(9, 5).bfloat16()
    tensors = {"w": weight, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 7)}
    save_torch_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(CONFIG)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors["w"].dtype == "BF16"
        assert checkpoint.read("w", 1, 3).tobytes() == weight[1:4].float().numpy().tobytes()
        assert checkpoint.read("scalar").shape == ()
        assert checkpoint.read("scalar") == 2.5
        assert checkpoint.read("empty").shape == (0, 7)
        assert set(checkpoint.tensors) == set(tensors)


def test_rows_longer_than_a_chunk(tmp_path: Path) -> None:
    source = np.random.default_rng(2).standard_normal((3, 700_001)).astype(np.float16)
    save_file({"w": source}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(CONFIG)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("w", 1).tobytes() == source[1:].astype(np.float32).tobytes()


def test_what_is_read_is_fresh_and_writable(tmp_path: Path) -> None:
    save_file({"w": np.ones((4, 4), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(CONFIG)
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.read("w")[:] = 7
        assert (checkpoint.read("w") == 1).all()


def test_a_float8_tensor_is_listed_but_not_read(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"w": entry([4], 0, 4, "F8_E4M3")}, bytes(4))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors["w"].dtype == "F8_E4M3"
        with pytest.raises(UnsupportedModelError, match="tensor w is stored as F8_E4M3"):
            checkpoint.read("w")


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"w": entry([2, 2], 0, 16)}, 15, "tensor w is cut short: expected 16 bytes, found 15"),
        (
            {"w": entry([2], 0, 8), "v": entry([2], 8, 16)},
            8,
            "tensor v is cut short: expected 8 bytes, found 0",
        ),
        ({"w": entry([2, 2], 0, 12)}, 16, r"shape \[2, 2\] takes 16 bytes, but its offsets span 12"),
        ({"w": entry([2], 0, 8), "v": entry([2], 4, 12)}, 12, "tensors w and v overlap at offset"),
        ({"w": entry([2], 8, 0)}, 8, "malformed data_offsets"),
        ({"w": entry([2], -8, 0)}, 8, "malformed data_offsets"),
        ({"w": entry([2], 0, "8")}, 8, "malformed data_offsets"),
        ({"w": entry([2], 0, True)}, 8, "malformed data_offsets"),
        ({"w": {"dtype": "F32", "shape": [2]}}, 8, "malformed data_offsets"),
        ({"w": entry([-2], 0, 8)}, 8, "malformed shape"),
        ({"w": entry("2", 0, 8)}, 8, "malformed shape"),
        ({"w": entry([1.0, 2], 0, 8)}, 8, "malformed shape"),
        ({"w": entry([2**62, 2**62, 0], 0, 0)}, 8, "shape"),
        ({"w": entry([2**59, 2**59, 0], 0, 0)}, 8, "impossible shape"),
        ({"w": entry([1] * 9, 0, 4)}, 4, "9 dimensions, expected at most 8"),
        ({"w": entry([2], 0, 8, "Q4_9")}, 8, "unknown type 'Q4_9'"),
        ({"w": entry([2], 0, 8, ["F32"])}, 8, "unknown type"),
        ({"w": [1]}, 8, "must be described by an object"),
        ([1, 2], 8, "must hold a JSON object"),
        (b'{"w": 1, "w": 2}', 8, "appears twice"),
        (b"{not json", 8, "not valid JSON"),
    ],
)
def test_damaged_headers_are_errors(tmp_path: Path, header: Any, size: int, message: str) -> None:
    path = write(tmp_path / "model.safetensors", header, bytes(size))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("length", "message"),
    [(100, "the header is cut short"), (1 << 27, "expected at most"), (1 << 63, "not a safetensors file")],
)
def test_impossible_header_lengths_are_errors(tmp_path: Path, length: int, message: str) -> None:
    write(tmp_path / "model.safetensors", {}, length=length)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_file_without_a_header_is_an_error(tmp_path: Path, size: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(size))
    (tmp_path / "config.json").write_text(CONFIG)
    with pytest.raises(CheckpointError, match="the header length is cut short: expected 8 bytes"):
        open_checkpoint(tmp_path)
