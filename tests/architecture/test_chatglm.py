from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from architecture.listed_checkpoint import ListedCheckpoint, chatglm_shapes
from architecture.published import CHATGLM_6B, CHATGLM_6B_FIRST
from pocketglm.architecture.model import Architecture
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.spec import PrefixTokens
from pocketglm.architecture.table import RowRange, TensorRule
from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError

SLIM_TOKENS = PrefixTokens(mask=130000, gmask=130001, sop=130004)


def architecture_of(
    directory: Path, config: dict[str, Any], dropped_tensor: str | None = None
) -> Architecture:
    shapes = chatglm_shapes(config)
    shapes.pop(dropped_tensor or "", None)
    return model_from_config(ListedCheckpoint(directory, config, shapes))


def rule_of(rules: tuple[TensorRule, ...], name: str) -> TensorRule:
    return next(rule for rule in rules if rule.name == name)


def test_first_release_drops_the_image_tokens(tmp_path: Path) -> None:
    found = architecture_of(tmp_path, CHATGLM_6B_FIRST)
    slim = architecture_of(tmp_path, CHATGLM_6B)
    assert found.spec == slim.spec
    assert found.generation == slim.generation
    assert (found.tokenizer.dropped_rows, slim.tokenizer.dropped_rows) == (20000, 0)
    assert found.table.embedding.pieces == (RowRange("transformer.word_embeddings.weight", 20000, 130528),)
    assert rule_of(found.table.head, "head.weight").pieces == (RowRange("lm_head.weight", 20000, 130528),)
    assert slim.table.embedding.pieces == (RowRange("transformer.word_embeddings.weight", 0, 130528),)


@pytest.mark.parametrize("config", [CHATGLM_6B, CHATGLM_6B_FIRST], ids=["slim", "first"])
def test_prefix_tokens_are_known_where_the_settings_are_silent(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    silent = {key: value for key, value in config.items() if not key.endswith("_token_id")}
    found = architecture_of(tmp_path, silent)
    assert found.spec.prefix_tokens == SLIM_TOKENS
    assert found.generation.eos_token_ids == (130005,)
    assert found.generation.pad_token_id == 3


def test_settings_name_other_prefix_tokens(golden: Path) -> None:
    with open_checkpoint(golden / "chatglm-v1-tiny") as checkpoint:
        found = model_from_config(checkpoint)
    assert found.spec.prefix_tokens == PrefixTokens(mask=1472, gmask=1473, sop=1476)
    assert found.generation.eos_token_ids == (1477,)
    assert found.spec.residual_alpha == 56**0.5  # although the model has four layers


def test_unknown_prefix_tokens_are_asked_for(tmp_path: Path) -> None:
    config = {key: value for key, value in CHATGLM_6B.items() if not key.endswith("_token_id")}
    with pytest.raises(CheckpointError, match="mask_token_id is missing"):
        architecture_of(tmp_path, {**config, "vocab_size": 2000})
    with pytest.raises(
        CheckpointError, match=r"gmask_token_id is 130528, expected a token id from 0 to 130527"
    ):
        architecture_of(tmp_path, {**CHATGLM_6B, "gmask_token_id": 130528})
    with pytest.raises(CheckpointError, match=r"bos_token_id is 5, expected a token id from 20000 to 150527"):
        architecture_of(tmp_path, {**CHATGLM_6B_FIRST, "bos_token_id": 5})


def test_a_small_model_can_have_image_tokens_too(tmp_path: Path) -> None:
    config = {**CHATGLM_6B, "vocab_size": 140528, "num_image_tokens": 10000}
    shifted = {key: value + 10000 for key, value in CHATGLM_6B.items() if key.endswith("_token_id")}
    found = architecture_of(tmp_path, {**config, **shifted})
    assert found.spec.vocab_size == 130528
    assert found.spec.prefix_tokens == SLIM_TOKENS


@pytest.mark.parametrize("count", [-1, 130528])
def test_impossible_number_of_image_tokens(tmp_path: Path, count: int) -> None:
    with pytest.raises(CheckpointError, match=f"num_image_tokens is {count}, expected 0 to 130527"):
        architecture_of(tmp_path, {**CHATGLM_6B, "num_image_tokens": count})


def test_head_is_the_embedding_where_it_is_not_stored(tmp_path: Path) -> None:
    found = architecture_of(tmp_path, CHATGLM_6B_FIRST, dropped_tensor="lm_head.weight")
    assert found.spec.tied_head
    assert rule_of(found.table.head, "head.weight").pieces == found.table.embedding.pieces


def test_qkv_is_sorted_into_all_q_all_k_all_v(golden: Path) -> None:
    source = "transformer.layers.2.attention.query_key_value"
    with open_checkpoint(golden / "chatglm-v1-tiny") as checkpoint:
        table = model_from_config(checkpoint).table
        for suffix in ("weight", "bias"):
            rule = rule_of(table.blocks[2], f"attention.qkv.{suffix}")
            rows = [checkpoint.read(piece.source, piece.start, piece.count) for piece in rule.pieces]
            stored = checkpoint.read(f"{source}.{suffix}")
            by_head = stored.reshape(4, 3, 16, *stored.shape[1:])  # [heads, q|k|v, head_dim, ...]
            expected = np.swapaxes(by_head, 0, 1).reshape(stored.shape)
            np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_tokenizer(tmp_path: Path) -> None:
    tokenizer = architecture_of(tmp_path, CHATGLM_6B).tokenizer
    assert (tokenizer.kind, tokenizer.file) == ("sentencepiece", "ice_text.model")
    assert tokenizer.suffix_tokens == ("[gMASK]", "<sop>")
    assert tokenizer.prefix_tokens == ()
    text = "a\n\tb   c d" + " " * 83 + "e"
    for plain, token in tokenizer.replacements:
        text = text.replace(plain, token)
    assert text == "a<n><|tab|>b<|blank_3|>c d<|blank_80|><|blank_3|>e"


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("pre_seq_len", 128, "P-tuning"),
        ("quantization_bit", 4, "original float16"),
        ("quantization_bit", 8, "original float16"),
        ("position_encoding_2d", False, None),
    ],
)
def test_refused_settings(tmp_path: Path, name: str, value: object, hint: str | None) -> None:
    with pytest.raises(
        UnsupportedModelError, match=f"the setting {name} = {value} is not supported"
    ) as error:
        architecture_of(tmp_path, {**CHATGLM_6B, name: value})
    assert hint is None or hint in (error.value.hint or "")


def test_official_int4_weights_are_refused_even_if_the_settings_do_not_say_so(tmp_path: Path) -> None:
    shapes = chatglm_shapes(CHATGLM_6B)
    scales = {
        name.replace("weight", "weight_scale"): shape[:1] for name, shape in shapes.items() if "dense" in name
    }
    checkpoint = ListedCheckpoint(tmp_path, CHATGLM_6B, {**shapes, **scales})
    with pytest.raises(CheckpointError, match=r"does not use: transformer\.layers\.0\..*weight_scale"):
        model_from_config(checkpoint)
    integers = ListedCheckpoint(tmp_path, CHATGLM_6B, {**shapes, **scales}, dtype="I8")
    with pytest.raises(UnsupportedModelError, match="is stored as I8"):
        model_from_config(integers)
