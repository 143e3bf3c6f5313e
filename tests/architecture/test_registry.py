from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from architecture import published
from architecture.listed_checkpoint import (
    ListedCheckpoint,
    chatglm2_shapes,
    chatglm_shapes,
    transformers_shapes,
)
from pocketglm.architecture.registry import FAMILIES, model_from_config, supported_models
from pocketglm.architecture.spec import ModelSpec, PrefixTokens, RopeScaling, RotarySpec
from pocketglm.architecture.table import TensorTable, block_shapes, head_shapes
from pocketglm.errors import CheckpointError, UnsupportedModelError

EXPECTED = {
    "CHATGLM_6B": ModelSpec(
        family="chatglm",
        vocab_size=130528,
        hidden_size=4096,
        num_blocks=28,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        intermediate_size=16384,
        max_context=2048,
        norm="layernorm",
        norm_eps=1e-5,
        residual="normed_alpha",
        residual_alpha=56**0.5,
        rotary=RotarySpec("half", 128, 10000.0, axes=2, frequency_dtype="float16"),
        mlp="gelu_tanh",
        tied_head=False,
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        positions="glm_2d",
        prefix_tokens=PrefixTokens(mask=130000, gmask=130001, sop=130004),
    ),
    "CHATGLM2_6B": ModelSpec(
        family="chatglm2",
        vocab_size=65024,
        hidden_size=4096,
        num_blocks=28,
        num_heads=32,
        num_kv_heads=2,
        head_dim=128,
        intermediate_size=13696,
        max_context=32768,
        norm="rmsnorm",
        norm_eps=1e-5,
        residual="pre",
        rotary=RotarySpec("interleaved", 64, 10000.0),
        mlp="gated_silu",
        tied_head=False,
        qkv_bias=True,
    ),
    "GLM4_9B_CHAT": ModelSpec(
        family="glm4_remote",
        vocab_size=151552,
        hidden_size=4096,
        num_blocks=40,
        num_heads=32,
        num_kv_heads=2,
        head_dim=128,
        intermediate_size=13696,
        max_context=131072,
        norm="rmsnorm",
        norm_eps=1.5625e-7,
        residual="pre",
        rotary=RotarySpec("interleaved", 64, 5000000.0),
        mlp="gated_silu",
        tied_head=False,
        qkv_bias=True,
    ),
    "GLM4_9B_0414": ModelSpec(
        family="glm4",
        vocab_size=151552,
        hidden_size=4096,
        num_blocks=40,
        num_heads=32,
        num_kv_heads=2,
        head_dim=128,
        intermediate_size=13696,
        max_context=32768,
        norm="rmsnorm",
        norm_eps=1e-5,
        residual="sandwich",
        rotary=RotarySpec("interleaved", 64, 10000.0),
        mlp="gated_silu",
        tied_head=False,
        qkv_bias=True,
    ),
    "LLAMA_3_2_1B": ModelSpec(
        family="llama",
        vocab_size=128256,
        hidden_size=2048,
        num_blocks=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        intermediate_size=8192,
        max_context=131072,
        norm="rmsnorm",
        norm_eps=1e-5,
        residual="pre",
        rotary=RotarySpec("half", 64, 500000.0, scaling=RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)),
        mlp="gated_silu",
        tied_head=True,
    ),
    "MISTRAL_7B_V01": ModelSpec(
        family="mistral",
        vocab_size=32000,
        hidden_size=4096,
        num_blocks=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=14336,
        max_context=32768,
        norm="rmsnorm",
        norm_eps=1e-5,
        residual="pre",
        rotary=RotarySpec("half", 128, 10000.0),
        mlp="gated_silu",
        tied_head=False,
        sliding_window=4096,
    ),
    "QWEN25_05B": ModelSpec(
        family="qwen2",
        vocab_size=151936,
        hidden_size=896,
        num_blocks=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        intermediate_size=4864,
        max_context=32768,
        norm="rmsnorm",
        norm_eps=1e-6,
        residual="pre",
        rotary=RotarySpec("half", 64, 1000000.0),
        mlp="gated_silu",
        tied_head=True,
        qkv_bias=True,
    ),
    "QWEN3_06B": ModelSpec(
        family="qwen3",
        vocab_size=151936,
        hidden_size=1024,
        num_blocks=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=3072,
        max_context=40960,
        norm="rmsnorm",
        norm_eps=1e-6,
        residual="pre",
        rotary=RotarySpec("half", 128, 1000000.0),
        mlp="gated_silu",
        tied_head=True,
        qk_norm=True,
    ),
}

STOPS = {
    "CHATGLM_6B": (130005,),
    "CHATGLM_6B_FIRST": (130005,),
    "CHATGLM2_6B": (2,),
    "CHATGLM3_6B": (2, 64795, 64797),
    "GLM4_9B_CHAT": (151329, 151336, 151338),
    "GLM4_9B_CHAT_HF": (151329, 151336, 151338),
    "GLM4_9B_0414": (151329, 151336, 151338),
    "LLAMA_3_2_1B": (128001, 128008, 128009),
    "MISTRAL_7B_V01": (2,),
    "MISTRAL_7B_V03": (2,),
    "QWEN25_05B": (151645,),
    "QWEN3_06B": (151645,),
}


def published_checkpoint(name: str, directory: Path) -> ListedCheckpoint:
    config = getattr(published, name)
    if "inner_hidden_size" in config:
        shapes = chatglm_shapes(config)
    elif config["model_type"] == "chatglm":
        shapes = chatglm2_shapes(config)
    else:
        shapes = transformers_shapes(config)
    return ListedCheckpoint(directory, config, shapes)


def rows_read(table: TensorTable) -> dict[str, list[int]]:
    """Checkpoint tensor -> the rows that the table reads, in ascending order, repeats included."""
    rows: dict[str, list[int]] = defaultdict(list)
    for rule in table.all_rules():
        for piece in rule.pieces:
            rows[piece.source].extend(range(piece.start, piece.start + piece.count))
    return {name: sorted(found) for name, found in rows.items()}


@pytest.mark.parametrize("name", sorted(STOPS))
def test_every_published_model_is_read_exactly_once(name: str, tmp_path: Path) -> None:
    checkpoint = published_checkpoint(name, tmp_path)
    architecture = model_from_config(checkpoint)
    spec, table = architecture.spec, architecture.table
    assert architecture.generation.eos_token_ids == STOPS[name]

    dropped = architecture.tokenizer.dropped_rows
    vocabulary = range(dropped, dropped + spec.vocab_size)
    for source, rows in rows_read(table).items():
        stored = checkpoint.tensors[source].shape[0]
        if source == table.embedding.pieces[0].source and spec.tied_head:
            assert rows == sorted([*vocabulary, *vocabulary])
        elif stored == dropped + spec.vocab_size:
            assert rows == list(vocabulary)
        else:
            assert rows == list(range(stored)), source
    assert set(rows_read(table)) | table.ignored == set(checkpoint.tensors)


@pytest.mark.parametrize("name", sorted(STOPS))
def test_tables_have_the_canonical_tensors(name: str, tmp_path: Path) -> None:
    architecture = model_from_config(published_checkpoint(name, tmp_path))
    spec, table = architecture.spec, architecture.table
    assert table.embedding.shape == (spec.vocab_size, spec.hidden_size)
    assert len(table.blocks) == spec.num_blocks
    for block in table.blocks:
        assert {rule.name: rule.shape for rule in block} == block_shapes(spec)
    assert {rule.name: rule.shape for rule in table.head} == head_shapes(spec)
    for rule in table.all_rules():
        assert sum(piece.count for piece in rule.pieces) == rule.shape[0]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_specs_of_published_models(name: str, tmp_path: Path) -> None:
    assert model_from_config(published_checkpoint(name, tmp_path)).spec == EXPECTED[name]


def test_number_of_tensors_in_the_releases() -> None:
    assert len(chatglm_shapes(published.CHATGLM_6B)) == 368
    assert len(chatglm2_shapes(published.CHATGLM2_6B)) == 200


def test_unknown_model_type_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = ListedCheckpoint(tmp_path, {"model_type": "mamba"}, {})
    with pytest.raises(UnsupportedModelError, match="'mamba' is not supported") as refusal:
        model_from_config(checkpoint)
    assert refusal.value.hint is not None
    assert "qwen3" in refusal.value.hint


def test_missing_model_type(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: the setting model_type is missing"):
        model_from_config(ListedCheckpoint(tmp_path, {}, {}))


def test_impossible_dimensions_are_a_checkpoint_error(tmp_path: Path) -> None:
    config = {**published.LLAMA_3_2_1B, "num_key_value_heads": 5}
    shapes = transformers_shapes(published.LLAMA_3_2_1B)
    with pytest.raises(CheckpointError, match=r"config\.json: .*32 heads do not divide over 5"):
        model_from_config(ListedCheckpoint(tmp_path, config, shapes))


def test_more_blocks_than_tensors_is_refused_before_a_table_is_built(tmp_path: Path) -> None:
    config = {**published.CHATGLM2_6B, "num_layers": 1 << 23}
    with pytest.raises(CheckpointError, match="8388608 blocks in the settings, but only 200 tensors"):
        model_from_config(ListedCheckpoint(tmp_path, config, chatglm2_shapes(published.CHATGLM2_6B)))


def test_supported_models_lists_every_family_once() -> None:
    rows = supported_models()
    assert [row.family for row in rows] == [family.name for family in FAMILIES]
    assert len({row.family for row in rows}) == len(rows) == 10
    assert all(row.examples and row.refused and row.model_types for row in rows)
