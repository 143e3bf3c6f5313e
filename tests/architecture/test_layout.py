from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from architecture.listed_checkpoint import ListedCheckpoint, chatglm2_shapes
from pocketglm.architecture.layout import check_table, expected_shapes
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.table import RowRange, TensorRule, TensorTable
from pocketglm.errors import CheckpointError, UnsupportedModelError

TINY: dict[str, Any] = {
    "model_type": "chatglm",
    "add_qkv_bias": True,
    "ffn_hidden_size": 24,
    "hidden_size": 16,
    "kv_channels": 8,
    "layernorm_epsilon": 1e-5,
    "multi_query_group_num": 1,
    "num_attention_heads": 2,
    "num_layers": 2,
    "padded_vocab_size": 32,
    "seq_length": 64,
}
DENSE = "transformer.encoder.layers.1.self_attention.dense.weight"


def test_complete_checkpoint_passes(tmp_path: Path) -> None:
    checkpoint = ListedCheckpoint(tmp_path, TINY, chatglm2_shapes(TINY))
    check_table(model_from_config(checkpoint).table, checkpoint)


def test_missing_tensor_is_named_with_its_shape(tmp_path: Path) -> None:
    shapes = chatglm2_shapes(TINY)
    del shapes[DENSE]
    with pytest.raises(CheckpointError) as error:
        model_from_config(ListedCheckpoint(tmp_path, TINY, shapes))
    assert str(error.value) == f"{tmp_path}: tensor {DENSE} is missing, expected shape [16, 16]"
    assert error.value.hint is not None


@pytest.mark.parametrize("shape", [(16, 8), (8, 16), (17, 16), (16,), (16, 16, 1)])
def test_wrong_shape_names_file_expected_and_found(tmp_path: Path, shape: tuple[int, ...]) -> None:
    checkpoint = ListedCheckpoint(tmp_path, TINY, {**chatglm2_shapes(TINY), DENSE: shape})
    with pytest.raises(CheckpointError) as error:
        model_from_config(checkpoint)
    file = tmp_path / "model.safetensors"
    assert str(error.value) == f"{file}: tensor {DENSE} has shape {list(shape)}, expected [16, 16]"


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    shapes = {**chatglm2_shapes(TINY), "transformer.prefix_encoder.embedding.weight": (4, 4)}
    with pytest.raises(
        CheckpointError, match=r"1 tensors .* does not use: transformer\.prefix_encoder\.embedding"
    ):
        model_from_config(ListedCheckpoint(tmp_path, TINY, shapes))


def test_many_unknown_tensors_are_counted(tmp_path: Path) -> None:
    shapes = {**chatglm2_shapes(TINY), **{f"adapter.{index:02}.weight": (1,) for index in range(20)}}
    with pytest.raises(CheckpointError, match=r"20 tensors .*adapter\.07\.weight and 12 more$"):
        model_from_config(ListedCheckpoint(tmp_path, TINY, shapes))


@pytest.mark.parametrize("dtype", ["I8", "U8", "I32", "BOOL", "F8_E4M3", "int8"])
def test_quantized_weights_are_refused(tmp_path: Path, dtype: str) -> None:
    checkpoint = ListedCheckpoint(tmp_path, TINY, chatglm2_shapes(TINY), dtype=dtype)
    with pytest.raises(UnsupportedModelError, match=f"is stored as {dtype}") as error:
        model_from_config(checkpoint)
    assert error.value.hint is not None
    assert "original float checkpoint" in error.value.hint


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_float_weights_pass(tmp_path: Path, dtype: str) -> None:
    model_from_config(ListedCheckpoint(tmp_path, TINY, chatglm2_shapes(TINY), dtype=dtype))


def test_expected_shape_reaches_to_the_last_row_that_a_rule_reads() -> None:
    rule = TensorRule("a", (4, 3), (RowRange("source", 6, 2), RowRange("source", 0, 2)))
    table = TensorTable(embedding=rule, blocks=(), head=())
    assert expected_shapes(table) == {"source": (8, 3)}
