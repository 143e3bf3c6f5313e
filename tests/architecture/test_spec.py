"""Settings that no decoder can have are refused by name, wherever they come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from package.packages import TINY
from pocketglm.architecture.spec import ModelSpec, RopeScaling, RotarySpec
from pocketglm.errors import InputError


def test_round_trip() -> None:
    scaled = replace(TINY, rotary=replace(TINY.rotary, scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)))
    for spec in (TINY, scaled):
        assert ModelSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_heads": 5}, "do not divide"),
        ({"norm_eps": 1.5}, "norm_eps"),
        ({"residual_alpha": float("nan")}, "not finite"),
        ({"rotary": RotarySpec("half", 9, 10000.0)}, "rotary dimensions"),
        ({"rotary": RotarySpec("half", 16, 10000.0)}, "rotary dimensions"),
        ({"rotary": RotarySpec("half", 8, 1.0)}, "rotary base"),
        ({"rotary": RotarySpec("half", 8, 10000.0, axes=3)}, "rotary axes"),
        ({"positions": "glm_2d"}, "prefix_tokens"),
        ({"sliding_window": 0}, "sliding_window"),
    ],
)
def test_impossible_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("linear", 0.0),
        RopeScaling("linear", float("inf")),
        RopeScaling("llama3", 8.0, 4.0, 4.0, 8192),
        RopeScaling("llama3", 8.0, 1.0, 4.0, 0),
    ],
)
def test_impossible_rope_scaling(scaling: RopeScaling) -> None:
    with pytest.raises(InputError, match="rope"):
        replace(TINY, rotary=replace(TINY.rotary, scaling=scaling))
