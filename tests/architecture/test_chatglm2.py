"""ChatGLM2, ChatGLM3 and GLM-4 in the layout that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from architecture.listed_checkpoint import ListedCheckpoint, chatglm2_shapes, write_side_file
from architecture.published import CHATGLM2_6B, CHATGLM3_6B, GLM4_9B_CHAT
from pocketglm.architecture.model import Architecture
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.spec import RopeScaling
from pocketglm.checkpoint import open_checkpoint
from pocketglm.errors import UnsupportedModelError

NAMELESS = {key: value for key, value in CHATGLM2_6B.items() if key != "_name_or_path"}
V2_CODE = 'special_tokens = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]\n'
V3_CODE = V2_CODE + 'role_special_tokens = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]\n'


def architecture_of(directory: Path, config: dict[str, Any], **files: object) -> Architecture:
    checkpoint = ListedCheckpoint(directory, config, chatglm2_shapes(config))
    for name, content in files.items():
        write_side_file(checkpoint, name.replace("__", "."), content)
    return model_from_config(checkpoint)


def test_golden_checkpoint(golden: Path) -> None:
    with open_checkpoint(golden / "chatglm2-tiny") as checkpoint:
        found = model_from_config(checkpoint)
    assert found.spec.family == "chatglm2"
    assert (found.spec.num_kv_heads, found.spec.head_dim, found.spec.rotary.dimensions) == (2, 16, 8)


@pytest.mark.parametrize(
    ("config", "files", "family"),
    [
        (CHATGLM2_6B, {}, "chatglm2"),
        (CHATGLM3_6B, {}, "chatglm3"),
        (NAMELESS, {}, "chatglm2"),
        ({**NAMELESS, "seq_length": 8192}, {}, "chatglm3"),
        ({**NAMELESS, "seq_length": 131072}, {}, "chatglm3"),
        (NAMELESS, {"tokenization_chatglm__py": V3_CODE}, "chatglm3"),
        ({**NAMELESS, "seq_length": 8192}, {"tokenization_chatglm__py": V2_CODE}, "chatglm2"),
        (
            NAMELESS,
            {"tokenizer_config__json": {"added_tokens_decoder": {"64795": {"content": "<|user|>"}}}},
            "chatglm3",
        ),
        (NAMELESS, {"tokenizer_config__json": {"name_or_path": "THUDM/chatglm3-6b-base"}}, "chatglm3"),
        (
            {**NAMELESS, "seq_length": 8192},
            {"tokenizer_config__json": {"name_or_path": "THUDM/chatglm2-6b"}},
            "chatglm2",
        ),
        (GLM4_9B_CHAT, {}, "glm4_remote"),
        ({**GLM4_9B_CHAT, "eos_token_id": None}, {}, "glm4_remote"),
    ],
)
def test_the_generations_are_told_apart(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], family: str
) -> None:
    assert architecture_of(tmp_path, config, **files).spec.family == family


def test_rope_ratio_stretches_positions_in_chatglm2_and_the_base_later(tmp_path: Path) -> None:
    second = architecture_of(tmp_path, {**CHATGLM2_6B, "rope_ratio": 16}).spec.rotary
    assert (second.base, second.scaling) == (10000.0, RopeScaling("linear", 16.0))
    third = architecture_of(tmp_path, {**CHATGLM3_6B, "rope_ratio": 50}).spec.rotary
    assert (third.base, third.scaling) == (500000.0, None)
    million = {**GLM4_9B_CHAT, "rope_ratio": 10000, "multi_query_group_num": 4, "seq_length": 1048576}
    fourth = architecture_of(tmp_path, million).spec
    assert (fourth.rotary.base, fourth.num_kv_heads, fourth.max_context) == (1e8, 4, 1048576)


def test_sampling_defaults(tmp_path: Path) -> None:
    second = architecture_of(tmp_path, CHATGLM2_6B).generation
    assert (second.do_sample, second.temperature, second.top_p, second.max_length) == (True, 0.8, 0.8, 8192)
    assert architecture_of(tmp_path, GLM4_9B_CHAT).generation.pad_token_id == 151329


def test_special_tokens_follow_the_pieces(tmp_path: Path) -> None:
    second = architecture_of(tmp_path, CHATGLM2_6B).tokenizer
    third = architecture_of(tmp_path, CHATGLM3_6B).tokenizer
    fourth = architecture_of(tmp_path, GLM4_9B_CHAT).tokenizer
    assert 64789 + second.appended_tokens.index("[gMASK]") == 64790
    assert 64789 + third.appended_tokens.index("<|observation|>") == 64797
    assert 151329 + fourth.appended_tokens.index("<sop>") == 151333
    assert 151329 + fourth.appended_tokens.index("<|observation|>") == 151338
    assert "<|user|>" not in second.appended_tokens
    assert second.prefix_tokens == third.prefix_tokens == fourth.prefix_tokens == ("[gMASK]", "<sop>")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pre_seq_len", 128),
        ("quantization_bit", 4),
        ("add_bias_linear", True),
        ("apply_residual_connection_post_layernorm", True),
        ("multi_query_attention", False),
        ("original_rope", False),
        ("post_layer_norm", False),
        ("rmsnorm", False),
        ("tie_word_embeddings", True),
        ("vision_config", {"image_size": 1120}),
    ],
)
@pytest.mark.parametrize("config", [CHATGLM2_6B, CHATGLM3_6B, GLM4_9B_CHAT], ids=["v2", "v3", "glm4"])
def test_refused_settings(tmp_path: Path, config: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=f"the setting {name} = "):
        architecture_of(tmp_path, {**config, name: value})
