"""Reading rows: ranges are checked, memory stays small, threads do not disturb each other."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pocketglm.checkpoint import Checkpoint, open_checkpoint
from pocketglm.errors import CheckpointError


@pytest.fixture
def weights(tmp_path: Path) -> np.ndarray:
    """A float16 matrix, also saved as tensor `w` of a checkpoint in tmp_path."""
    values = np.random.default_rng(0).standard_normal((4000, 1000)).astype(np.float16)
    save_file({"w": values}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return values


def test_it_follows_the_contract(tmp_path: Path, weights: np.ndarray) -> None:
    checkpoint: Checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.read("w", 4000).shape == (0, 1000)
    assert checkpoint.read("w", 3999, 1).tolist() == weights[3999:].astype(np.float32).tolist()
    assert checkpoint.metadata == {}
    with pytest.raises(TypeError):
        checkpoint.tensors["w"] = None  # type: ignore[index]
    checkpoint.close()


@pytest.mark.parametrize(
    ("start", "count"), [(-1, 1), (0, 4001), (4000, 1), (4001, None), (5, -1), (0, 1 << 62)]
)
def test_ranges_outside_the_tensor_are_errors(
    tmp_path: Path, weights: np.ndarray, start: int, count: int | None
) -> None:
    with (
        open_checkpoint(tmp_path) as checkpoint,
        pytest.raises(CheckpointError, match="tensor w has 4000 rows"),
    ):
        checkpoint.read("w", start, count)


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path, weights: np.ndarray) -> None:
    with (
        open_checkpoint(tmp_path) as checkpoint,
        pytest.raises(CheckpointError, match="has no tensor nothing"),
    ):
        checkpoint.read("nothing")


def test_a_closed_checkpoint_says_so(tmp_path: Path, weights: np.ndarray) -> None:
    with open_checkpoint(tmp_path) as checkpoint:
        pass
    with pytest.raises(CheckpointError, match="cannot read tensor w"):
        checkpoint.read("w")


def test_memory_is_what_was_asked_for(tmp_path: Path, weights: np.ndarray) -> None:
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.read("w", 0, 1)
        tracemalloc.start()
        checkpoint.read("w", 1000, 1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1000 * 1000 * 4 + (1 << 20)  # the rows, and one chunk on its way


def test_threads_read_the_same_values(tmp_path: Path, weights: np.ndarray) -> None:
    torch.save({"w": torch.from_numpy(weights)}, tmp_path / "pytorch_model.bin")
    expected = weights.astype(np.float32)
    for name in ("model.safetensors", "pytorch_model.bin"):
        with open_checkpoint(tmp_path / name) as checkpoint, ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda row: checkpoint.read("w", row, 50), range(0, 4000, 50)))
        assert np.concatenate(parts).tobytes() == expected.tobytes()
