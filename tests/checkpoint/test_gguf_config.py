"""GGUF settings come out as the original config.json; unknown settings are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint.gguf_files import LLAMA_SETTINGS, VOCAB, llama_tensors, write_gguf
from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError


def config(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """The configuration read from a file written with these options."""
    with open_checkpoint(write_gguf(tmp_path / "m.gguf", **options)) as checkpoint:
        return dict(checkpoint.config)


def test_llama(tmp_path: Path) -> None:
    assert config(tmp_path) == {
        "model_type": "llama",
        "hidden_act": "silu",
        "num_hidden_layers": 1,
        "max_position_embeddings": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-05,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
        "rope_interleaved": True,
    }


def test_an_output_matrix_unties_the_head(tmp_path: Path) -> None:
    tensors = {**llama_tensors(), "output.weight": np.ones((VOCAB, 64), np.float32)}
    assert config(tmp_path, tensors=tensors)["tie_word_embeddings"] is False


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "glm4"])
def test_biases_and_head_sizes_of_other_architectures(tmp_path: Path, architecture: str) -> None:
    tensors = {**llama_tensors(), "blk.0.attn_q.bias": np.ones(64, np.float32)}
    settings = {
        **LLAMA_SETTINGS,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_count": 16,
    }
    found = config(tmp_path, tensors=tensors, settings=settings, architecture=architecture)
    assert (found["model_type"], found["attention_bias"], found["head_dim"]) == (architecture, True, 32)
    assert found["partial_rotary_factor"] == 0.5
    assert "rope_interleaved" not in found


def test_chatglm_has_the_names_of_its_own_config(tmp_path: Path) -> None:
    tensors = {
        "token_embd.weight": np.ones((VOCAB, 64), np.float32),
        "blk.0.attn_qkv.weight": np.ones((128, 64), np.float32),
        "blk.0.attn_qkv.bias": np.ones(128, np.float32),
        "output.weight": np.ones((VOCAB, 64), np.float32),
    }
    settings = {**LLAMA_SETTINGS, "rope.dimension_count": 8, "rope.freq_base": 5e6}
    path = write_gguf(tmp_path / "m.gguf", tensors, settings, "chatglm")
    with open_checkpoint(path) as checkpoint:
        expected = {
            "model_type": "chatglm",
            "num_layers": 1,
            "seq_length": 128,
            "ffn_hidden_size": 96,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "kv_channels": 16,
            "layernorm_epsilon": 1e-05,
            "padded_vocab_size": VOCAB,
            "add_qkv_bias": True,
            "add_bias_linear": False,
            "rope_ratio": 500.0,
            "tie_word_embeddings": False,
            "rmsnorm": True,
        }
        assert checkpoint.config.items() >= expected.items()
        assert "transformer.encoder.layers.0.self_attention.query_key_value.bias" in checkpoint.tensors


def test_chatglm_that_rotates_whole_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="rotates 1 of a head"):
        config(tmp_path, architecture="chatglm")


def test_special_tokens(tmp_path: Path) -> None:
    ids = {"bos": 1, "eos": 2, "padding": 3, "unknown": 0, "eot": 9}
    metadata = {f"tokenizer.ggml.{name}_token_id": value for name, value in ids.items()}
    found = config(tmp_path, metadata=metadata)
    assert found["bos_token_id"] == 1
    assert found["eos_token_id"] == [2, 9]
    assert found["pad_token_id"] == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, {"rope_type": "yarn", "factor": 4.0}),
        ({"rope.scaling.type": "none"}, None),
    ],
)
def test_rotary_scaling(tmp_path: Path, settings: dict[str, Any], expected: Any) -> None:
    assert config(tmp_path, settings={**LLAMA_SETTINGS, **settings}).get("rope_scaling") == expected


def test_a_number_for_each_block_is_accepted_where_all_are_equal(tmp_path: Path) -> None:
    settings = {**LLAMA_SETTINGS, "attention.head_count_kv": [2, 2], "feed_forward_length": [96, 96]}
    assert config(tmp_path, settings=settings)["intermediate_size"] == 96
    with pytest.raises(
        CheckpointError, match=r"llama\.feed_forward_length: expected one number for all blocks"
    ):
        config(tmp_path, settings={**LLAMA_SETTINGS, "feed_forward_length": [96, 64]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention.sliding_window": 64}, r"the setting llama\.attention\.sliding_window is not supported"),
        ({"expert_count": 8}, r"the setting llama\.expert_count is not supported"),
        ({"logit_scale": 0.5}, r"the setting llama\.logit_scale is not supported"),
        ({"attention.value_length": 8}, "attention keys of 16 and values of 8"),
    ],
)
def test_settings_that_change_the_maths_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        config(tmp_path, settings={**LLAMA_SETTINGS, **settings})


def test_settings_without_effect_are_accepted(tmp_path: Path) -> None:
    neutral = {"vocab_size": 40, "tensor_data_layout": "Meta AI original pth", "expert_count": 0}
    assert config(tmp_path, settings={**LLAMA_SETTINGS, **neutral})["model_type"] == "llama"


@pytest.mark.parametrize("missing", ["block_count", "context_length", "attention.head_count"])
def test_missing_settings_are_named(tmp_path: Path, missing: str) -> None:
    settings = {name: value for name, value in LLAMA_SETTINGS.items() if name != missing}
    with pytest.raises(CheckpointError, match=f"metadata llama.{missing}: expected a number, found nothing"):
        config(tmp_path, settings=settings)


@pytest.mark.parametrize("value", ["four", 0, True])
def test_a_wrong_number_of_heads_is_an_error(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"attention\.head_count"):
        config(tmp_path, settings={**LLAMA_SETTINGS, "attention.head_count": value})


def test_unknown_architectures_and_split_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="GGUF architecture 'gemma' is not supported"):
        config(tmp_path, architecture="gemma")
    with pytest.raises(UnsupportedModelError, match="one part of a split GGUF model"):
        config(tmp_path, metadata={"split.count": 3})
