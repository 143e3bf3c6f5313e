"""Llama 3.1's rotary factors are recognised, against the transformers library's formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from checkpoint.gguf_files import LLAMA_SETTINGS, llama_tensors, write_gguf
from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError


def scaling(factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def factors(factor: float, base: float) -> np.ndarray:
    """What a GGUF file of such a model stores: plain frequencies over scaled ones."""
    parameters = {**scaling(factor), "rope_theta": base}
    settings = LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters=parameters)
    scaled = LlamaRotaryEmbedding(settings).inv_freq
    plain = 1.0 / base ** (torch.arange(0, 128, 2).float() / 128)
    return (plain / scaled).numpy().astype(np.float32)


def found(tmp_path: Path, stored: np.ndarray, base: float) -> Any:
    settings = {**LLAMA_SETTINGS, "rope.freq_base": base}
    path = write_gguf(tmp_path / "m.gguf", {**llama_tensors(), "rope_freqs.weight": stored}, settings)
    with open_checkpoint(path) as checkpoint:
        assert "rope_freqs.weight" not in checkpoint.tensors
        return checkpoint.config.get("rope_scaling")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_factors_become_the_setting(tmp_path: Path, factor: float) -> None:
    assert found(tmp_path, factors(factor, 500000.0), 500000.0) == scaling(factor)


def test_factors_of_one_are_no_scaling(tmp_path: Path) -> None:
    assert found(tmp_path, np.ones(64, np.float32), 10000.0) is None


@pytest.mark.parametrize(
    "bad", [np.linspace(1, 8, 64), np.full(64, np.nan), np.full(64, np.inf), -np.ones(64)]
)
def test_other_factors_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(UnsupportedModelError, match=r"rope_freqs\.weight are not those of Llama 3\.1"):
        found(tmp_path, bad.astype(np.float32), 500000.0)


@pytest.mark.parametrize("shape", [(2, 32), (5000,)])
def test_factors_of_a_wrong_shape_are_an_error(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match="is not a short vector"):
        found(tmp_path, np.ones(shape, np.float32), 10000.0)
