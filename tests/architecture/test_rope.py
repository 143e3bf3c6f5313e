from __future__ import annotations

from typing import Any

import pytest

from pocketglm.architecture.config import Config
from pocketglm.architecture.rope import read_rotary
from pocketglm.architecture.spec import RopeScaling, RotarySpec
from pocketglm.errors import CheckpointError, UnsupportedModelError

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def rotary(partial: float | None = None, **values: Any) -> RotarySpec:
    return read_rotary(Config(values, "config.json"), 64, 2048, partial=partial)


def test_default() -> None:
    assert rotary() == rotary(rope_scaling=None) == RotarySpec("half", 64, 10000.0)
    assert rotary(rope_theta=5e5) == RotarySpec("half", 64, 5e5)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_both_notations_say_the_same(key: str) -> None:
    new = {"rope_theta": 5e5, "rope_type": "default"}
    assert rotary(rope_parameters=new) == rotary(rope_theta=5e5)
    assert rotary(**{key: LLAMA3}, rope_theta=5e5).scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    assert rotary(**{key: {**LLAMA3, "rope_theta": 5e5}}).base == 5e5
    assert rotary(**{key: {"type": "linear", "factor": 4}}).scaling == RopeScaling("linear", 4.0)


def test_llama3_original_length_falls_back_to_the_context() -> None:
    settings = {name: value for name, value in LLAMA3.items() if not name.startswith("original")}
    scaling = rotary(rope_scaling=settings).scaling
    assert scaling is not None
    assert scaling.original_context == 2048


def test_partial_rotary() -> None:
    assert rotary(partial=0.5).dimensions == 32
    assert rotary(partial=0.5, partial_rotary_factor=0.25).dimensions == 16
    assert rotary(partial=0.5, rope_parameters={"partial_rotary_factor": 0.75}).dimensions == 48


@pytest.mark.parametrize(
    "values", [{"partial_rotary_factor": 0.5}, {"rope_parameters": {"partial_rotary_factor": 0.5}}]
)
def test_partial_rotary_is_refused_where_the_family_has_none(values: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"partial_rotary_factor = 0\.5"):
        rotary(**values)
    assert rotary(partial_rotary_factor=1.0).dimensions == 64


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope", "mrope", "su", "proportional"])
def test_other_scaling_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"rope_scaling\.(rope_)?type = '{kind}'"):
        rotary(rope_scaling={"type": kind, "factor": 4.0})
    with pytest.raises(UnsupportedModelError, match=rf"rope_parameters\.rope_type = '{kind}'"):
        rotary(rope_parameters={"rope_type": kind, "factor": 4.0})


@pytest.mark.parametrize("name", ["attention_factor", "mrope_section", "full_attention", "low_freq_factor"])
def test_a_setting_that_the_kind_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"rope_parameters\.{name} = 3"):
        rotary(rope_parameters={"rope_type": "default", name: 3})
    assert rotary(rope_parameters={"rope_type": "default", name: None}).scaling is None


@pytest.mark.parametrize("missing", ["factor", "low_freq_factor", "high_freq_factor"])
def test_incomplete_llama3_scaling(missing: str) -> None:
    settings = {name: value for name, value in LLAMA3.items() if name != missing}
    with pytest.raises(CheckpointError, match=rf"rope_scaling\.{missing} is missing"):
        rotary(rope_scaling=settings)
