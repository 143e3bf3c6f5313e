"""The families of the transformers library, against checkpoints that it writes itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketglm.architecture.model import Architecture
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.table import TensorRule
from pocketglm.checkpoint import open_checkpoint
from pocketglm.checkpoint.source import Checkpoint, Float32
from pocketglm.errors import CheckpointError, UnsupportedModelError

torch = pytest.importorskip("torch")

TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True},
    "llama-biased": {"attention_bias": True, "mlp_bias": True},
    "llama-wide-heads": {"head_dim": 16},
    "mistral": {"sliding_window": 16},
    "qwen2": {},
    "qwen2-windows": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "qwen3": {},
    "qwen3-biased": {"attention_bias": True},
    "glm": {},
    "glm-unbiased": {"attention_bias": False},
    "glm4": {},
}


def save(directory: Path, variant: str, dtype: str = "float32") -> Path:
    """A tiny model with seeded random weights, as the library saves it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(variant.split("-")[0], **{**TINY, **VARIANTS[variant]})
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(directory)
    return directory


def read_rule(checkpoint: Checkpoint, rule: TensorRule) -> Float32:
    parts = [checkpoint.read(piece.source, piece.start, piece.count) for piece in rule.pieces]
    return np.concatenate(parts)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saved_models_are_covered_exactly(tmp_path: Path, variant: str, dtype: str) -> None:
    with open_checkpoint(save(tmp_path, variant, dtype)) as checkpoint:
        found = model_from_config(checkpoint)
        used = 0
        for rule in found.table.all_rules():
            tensor = read_rule(checkpoint, rule)
            assert tensor.shape == rule.shape
            used += tensor.size
        stored = sum(int(np.prod(info.shape)) for info in checkpoint.tensors.values())
    tied_again = found.spec.vocab_size * found.spec.hidden_size if found.spec.tied_head else 0
    assert used == stored + tied_again
    assert not found.table.ignored
    assert found.template is None
    assert found.generation.eos_token_ids == (2,)


@pytest.mark.parametrize("variant", ["llama", "qwen2", "glm"])
def test_rows_are_in_the_canonical_order(tmp_path: Path, variant: str) -> None:
    with open_checkpoint(save(tmp_path, variant)) as checkpoint:
        block = {rule.name: rule for rule in model_from_config(checkpoint).table.blocks[1]}
        prefix = "model.layers.1."
        qkv = [checkpoint.read(f"{prefix}self_attn.{part}_proj.weight") for part in "qkv"]
        np.testing.assert_array_equal(
            read_rule(checkpoint, block["attention.qkv.weight"]), np.concatenate(qkv)
        )
        if f"{prefix}mlp.gate_up_proj.weight" in checkpoint.tensors:
            gate_up = checkpoint.read(f"{prefix}mlp.gate_up_proj.weight")
        else:
            gate_up = np.concatenate(
                [checkpoint.read(f"{prefix}mlp.{part}_proj.weight") for part in ("gate", "up")]
            )
        np.testing.assert_array_equal(read_rule(checkpoint, block["mlp.gate_up.weight"]), gate_up)


def test_settings_of_the_variants(tmp_path: Path) -> None:
    def spec(variant: str) -> Any:
        with open_checkpoint(save(tmp_path / variant, variant)) as checkpoint:
            return model_from_config(checkpoint).spec

    biased = spec("llama-biased")
    assert (biased.qkv_bias, biased.attention_output_bias, biased.mlp_bias) == (True, True, True)
    assert spec("llama-tied").tied_head
    assert spec("llama-wide-heads").q_size == 64
    assert spec("mistral").window_of(0) == 16
    windows = spec("qwen2-windows")
    assert (windows.window_of(0), windows.window_of(1)) == (None, 16)
    assert spec("qwen3-biased").attention_output_bias
    assert spec("glm").rotary.kind == "interleaved"
    assert spec("glm").rotary.dimensions == 4
    assert spec("glm4").residual == "sandwich"


def change(directory: Path, **settings: Any) -> None:
    """Edit `config.json`; None removes a setting."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def build(directory: Path) -> Architecture:
    with open_checkpoint(directory) as checkpoint:
        return model_from_config(checkpoint)


@pytest.mark.parametrize("variant", ["llama", "mistral", "qwen2", "qwen3", "glm", "glm4"])
def test_old_and_new_notation_of_rotary_settings_agree(tmp_path: Path, variant: str) -> None:
    new = build(save(tmp_path, variant)).spec
    change(tmp_path, rope_parameters=None, rope_theta=10000.0, rope_scaling=None)
    assert build(tmp_path).spec == new


def test_gguf_order_of_rotary_pairs(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    change(tmp_path, rope_interleaved=True)
    assert build(tmp_path).spec.rotary.kind == "interleaved"


def test_bias_that_the_settings_deny_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, "llama-biased")
    change(tmp_path, attention_bias=False)
    with pytest.raises(CheckpointError, match=r"does not use: model\.layers\.0\.self_attn\.k_proj\.bias"):
        build(tmp_path)


def test_bias_that_the_settings_promise_is_missed(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    change(tmp_path, attention_bias=True)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.self_attn\.q_proj\.bias is missing"):
        build(tmp_path)


def test_untied_model_without_a_head(tmp_path: Path) -> None:
    save(tmp_path, "llama-tied")
    change(tmp_path, tie_word_embeddings=False)
    with pytest.raises(
        CheckpointError, match=r"tensor lm_head\.weight is missing, expected shape \[96, 32\]"
    ):
        build(tmp_path)


def test_tied_model_with_a_head_of_its_own_keeps_it(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    change(tmp_path, tie_word_embeddings=True)
    found = build(tmp_path)
    assert not found.spec.tied_head
    assert found.table.head[-1].pieces[0].source == "lm_head.weight"


@pytest.mark.parametrize(
    ("variant", "settings", "name"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling.rope_type"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_scaling.type"),
        ("llama", {"rope_scaling": {"type": "longrope", "factor": 4.0}}, "rope_scaling.type"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
        ("llama", {"num_local_experts": 8}, "num_local_experts"),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen2", {"num_experts": 60}, "num_experts"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling.type"),
        ("glm", {"hidden_act": "relu"}, "hidden_act"),
        ("glm4", {"vision_config": {"depth": 24}}, "vision_config"),
    ],
)
def test_refused_settings(tmp_path: Path, variant: str, settings: dict[str, Any], name: str) -> None:
    save(tmp_path, variant)
    change(tmp_path, **settings)
    with pytest.raises(UnsupportedModelError) as error:
        build(tmp_path)
    assert f"the setting {name} = " in error.value.message
    assert error.value.where == str(tmp_path / "config.json")
