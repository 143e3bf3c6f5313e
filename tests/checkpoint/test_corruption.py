"""Whatever bytes are damaged: a checkpoint is read, or there is a `CheckpointError`. Nothing else happens."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from checkpoint.gguf_files import llama_tensors, write_gguf
from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import CheckpointError

TENSORS = {"layer.weight": np.arange(12, dtype=np.float16).reshape(3, 4), "norm": np.ones(3, np.float32)}
Edits = list[tuple[int, bytes]]
VALUES = st.one_of(
    st.binary(min_size=1, max_size=4),
    st.sampled_from(
        [struct.pack("<Q", value) for value in (0, 1, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)]
    ),
)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), VALUES), min_size=1, max_size=4)
CUT = st.one_of(st.none(), st.integers(0, 1 << 20))


@pytest.fixture(scope="module")
def originals() -> Iterator[dict[str, bytes]]:
    """One small file of each format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        save_file(TENSORS, path / "model.safetensors")
        torch.save(
            {name: torch.from_numpy(value) for name, value in TENSORS.items()}, path / "pytorch_model.bin"
        )
        matrix = "blk.0.ffn_down.weight"
        tensors = {
            name: value[:1] if value.ndim == 1 else value[:1, :32] for name, value in llama_tensors().items()
        }
        tensors[matrix] = gguf.quants.quantize(np.ones((2, 32), np.float32), gguf.GGMLQuantizationType.Q4_1)
        kinds = {matrix: gguf.GGMLQuantizationType.Q4_1}
        write_gguf(path / "model.gguf", tensors, metadata={"tokenizer.ggml.tokens": ["a", "b"]}, types=kinds)
        yield {file.name: file.read_bytes() for file in path.iterdir()}


def damaged(content: bytes, edits: Edits, cut: int | None) -> bytes:
    raw = bytearray(content)
    for position, value in edits:
        position %= len(raw)
        raw[position : position + len(value)] = value
    return bytes(raw if cut is None else raw[: cut % (len(raw) + 1)])


def read_everything(path: Path) -> None:
    """Open, and read all tensors and metadata: shapes must be those announced."""
    with open_checkpoint(path) as checkpoint:
        for name, info in checkpoint.tensors.items():
            try:
                assert checkpoint.read(name).shape == info.shape
            except CheckpointError:
                continue
        for key in checkpoint.metadata:
            checkpoint.metadata[key]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.gguf"])
@given(edits=EDITS, cut=CUT)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files(
    originals: dict[str, bytes], tmp_path: Path, name: str, edits: Edits, cut: int | None
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(damaged(originals[name], edits, cut))
    try:
        read_everything(tmp_path / name)
    except CheckpointError as error:
        assert error.where  # noqa: PT017  (most examples do raise, and none has to)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.gguf"])
def test_each_single_byte(originals: dict[str, bytes], tmp_path: Path, name: str) -> None:
    """Every seventh byte of the file, turned over: the headers are covered from end to end."""
    content = originals[name]
    (tmp_path / "config.json").write_text("{}")
    for position in range(0, len(content), 7):
        (tmp_path / name).write_bytes(damaged(content, [(position, bytes([content[position] ^ 0xFF]))], None))
        try:
            read_everything(tmp_path / name)
        except CheckpointError as error:
            assert error.where  # noqa: PT017


def test_the_originals_are_whole(originals: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, content in originals.items():
        (tmp_path / name).write_bytes(content)
        with open_checkpoint(tmp_path / name) as checkpoint:
            assert all(np.isfinite(checkpoint.read(tensor)).all() for tensor in checkpoint.tensors)
