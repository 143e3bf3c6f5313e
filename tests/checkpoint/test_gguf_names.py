"""The name tables agree with the table in the `gguf` package that converters use."""

from __future__ import annotations

import gguf
import pytest

from pocketglm.checkpoint.gguf_names import NAME_TABLES

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "glm4": gguf.MODEL_ARCH.GLM4,
    "chatglm": gguf.MODEL_ARCH.CHATGLM,
}


@pytest.mark.parametrize("architecture", NAME_TABLES)
def test_every_name_maps_back_to_where_it_came_from(architecture: str) -> None:
    table, names = NAME_TABLES[architecture], gguf.get_tensor_name_map(ARCHITECTURES[architecture], 4)
    inner = [f"blk.3.{name}.weight" for name in table.inner]
    for name in [f"{name}.weight" for name in table.outer] + inner:
        translated = table.translate(name)
        assert translated != name
        translated = translated.removeprefix("transformer.")  # the converter drops it before its table
        assert names.get_name(translated, (".weight",)) == name


def test_biases_and_unknown_names() -> None:
    table = NAME_TABLES["llama"]
    assert table.translate("blk.12.attn_q.bias") == "model.layers.12.self_attn.q_proj.bias"
    for name in ("blk.0.ffn_gate_exps.weight", "rope_freqs.weight", "blk.x.attn_q.weight", "strange", ""):
        assert table.translate(name) == name
