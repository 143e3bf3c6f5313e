"""GGUF tensors, against the `gguf` package's own dequantization of files that it writes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from checkpoint.gguf_files import HIDDEN, llama_tensors, write_gguf
from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError

WRITABLE = [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.BF16, Kind.TQ1_0, Kind.TQ2_0]
READ_ONLY = [
    Kind.Q2_K,
    Kind.Q3_K,
    Kind.Q4_K,
    Kind.Q5_K,
    Kind.Q6_K,
    Kind.IQ4_NL,
    Kind.IQ4_XS,
    Kind.IQ2_XS,
    Kind.IQ3_S,
]
MATRIX = "blk.0.ffn_down.weight"
MATRIX_HERE = "model.layers.0.mlp.down_proj.weight"


def test_float_tensors_under_hugging_face_names(tmp_path: Path) -> None:
    source = llama_tensors()
    source["blk.0.attn_q.weight"] = source["blk.0.attn_q.weight"].astype(np.float16)
    with open_checkpoint(write_gguf(tmp_path / "m.gguf", source)) as checkpoint:
        assert checkpoint.format == "gguf"
        assert checkpoint.directory == tmp_path
        assert sorted(checkpoint.tensors) == [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            MATRIX_HERE,
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.norm.weight",
        ]
        query = checkpoint.tensors["model.layers.0.self_attn.q_proj.weight"]
        assert (query.dtype, query.shape, query.size) == ("F16", (HIDDEN, HIDDEN), 2 * HIDDEN * HIDDEN)
        expected = source["blk.0.attn_q.weight"].astype(np.float32)
        assert checkpoint.read(query.name).tobytes() == expected.tobytes()
        assert checkpoint.tensors[MATRIX_HERE].shape == (64, 96)
        assert checkpoint.read(MATRIX_HERE, 3, 4).tobytes() == source[MATRIX][3:7].tobytes()
        assert checkpoint.read("model.norm.weight").tobytes() == source["output_norm.weight"].tobytes()


@pytest.mark.parametrize("kind", WRITABLE)
def test_types_that_the_package_writes(tmp_path: Path, kind: Kind) -> None:
    weights = np.random.default_rng(3).standard_normal((24, 512)).astype(np.float32)
    stored = gguf.quants.quantize(weights, kind)
    check(tmp_path, kind, stored)


@pytest.mark.parametrize("kind", READ_ONLY)
def test_types_that_the_package_only_reads(tmp_path: Path, kind: Kind) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(4).integers(0, 256, (24, 512 // block * size), np.uint8)
    check(tmp_path, kind, raw)


def check(tmp_path: Path, kind: Kind, stored: np.ndarray) -> None:
    """All rows and a slice of rows equal the package's dequantization, bit for bit."""
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(stored, kind).astype(np.float32)
    path = write_gguf(tmp_path / "m.gguf", {**llama_tensors(), MATRIX: stored}, types={MATRIX: kind})
    with open_checkpoint(path) as checkpoint:
        info = checkpoint.tensors[MATRIX_HERE]
        assert (info.dtype, info.shape, info.size) == (kind.name, (24, 512), stored.nbytes)
        assert checkpoint.read(MATRIX_HERE).tobytes() == expected.tobytes()
        assert checkpoint.read(MATRIX_HERE, 7, 5).tobytes() == expected[7:12].tobytes()


def test_a_quantized_vector_is_read_across_blocks(tmp_path: Path) -> None:
    stored = gguf.quants.quantize(np.random.default_rng(5).standard_normal(128).astype(np.float32), Kind.Q8_0)
    name = "output_norm.weight"
    path = write_gguf(tmp_path / "m.gguf", {**llama_tensors(), name: stored}, types={name: Kind.Q8_0})
    with open_checkpoint(path) as checkpoint:
        expected = gguf.quants.dequantize(stored, Kind.Q8_0)[30:70]
        assert checkpoint.read("model.norm.weight", 30, 40).tobytes() == expected.tobytes()


def test_a_type_that_cannot_be_expanded_is_listed_but_not_read(tmp_path: Path) -> None:
    raw = np.zeros((24, 2 * 292), np.uint8)
    path = write_gguf(tmp_path / "m.gguf", {**llama_tensors(), MATRIX: raw}, types={MATRIX: Kind.Q8_K})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors[MATRIX_HERE].shape == (24, 512)
        with pytest.raises(UnsupportedModelError, match="is stored as Q8_K"):
            checkpoint.read(MATRIX_HERE)


def test_a_directory_with_one_gguf_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.path, checkpoint.format) == (tmp_path, "gguf")


def test_two_tensors_for_one_name_are_an_error(tmp_path: Path) -> None:
    tensors = {**llama_tensors(), "model.norm.weight": np.ones(HIDDEN, np.float32)}
    with pytest.raises(CheckpointError, match=r"two tensors stand for model\.norm\.weight"):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", tensors))


def test_opening_a_large_vocabulary_is_quick(tmp_path: Path) -> None:
    tokens = [f"token{i}" for i in range(100_000)]
    path = write_gguf(tmp_path / "m.gguf", metadata={"tokenizer.ggml.tokens": tokens})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["tokenizer.ggml.tokens"] == tokens
