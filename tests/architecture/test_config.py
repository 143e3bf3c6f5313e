from __future__ import annotations

from typing import Any

import pytest

from pocketglm.architecture.config import UNSUPPORTED_SETTINGS, Config, refuse_unsupported
from pocketglm.errors import CheckpointError, UnsupportedModelError


def config(**values: Any) -> Config:
    return Config(values, "config.json")


def test_values_and_defaults() -> None:
    settings = config(layers=3, eps=1e-5, act="silu", bias=True, none=None, whole=2)
    assert settings.integer("layers") == 3
    assert settings.number("eps") == 1e-5
    assert settings.number("whole") == 2.0
    assert settings.text("act") == "silu"
    assert settings.flag("bias") is True
    assert settings.integer("none", 7) == settings.integer("absent", 7) == 7
    assert settings.flag("absent", False) is False
    assert "layers" in settings
    assert "none" not in settings


@pytest.mark.parametrize("value", ["3", 3.0, True, [3]])
def test_an_integer_is_not_guessed(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: the setting layers is .*, expected an integer"):
        config(layers=value).integer("layers")


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf")])
def test_a_number_is_finite(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"the setting eps is .*, expected a"):
        config(eps=value).number("eps")


@pytest.mark.parametrize("value", [0, 1, "true"])
def test_a_flag_is_a_boolean(value: object) -> None:
    with pytest.raises(CheckpointError, match="expected true or false"):
        config(bias=value).flag("bias", False)


def test_a_required_setting_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"^config\.json: the setting hidden_size is missing"):
        config().integer("hidden_size")
    with pytest.raises(CheckpointError, match="the setting hidden_size is None"):
        config(hidden_size=None).integer("hidden_size")


def test_integers_accepts_one_or_many() -> None:
    assert config(eos=2).integers("eos") == (2,)
    assert config(eos=[2, 3]).integers("eos") == (2, 3)
    assert config(eos=None).integers("eos") == ()
    with pytest.raises(CheckpointError, match="a list of integers"):
        config(eos=[2, "3"]).integers("eos")


def test_a_nested_setting_is_named_in_full() -> None:
    section = config(rope={"factor": "two"}).section("rope")
    assert section is not None
    with pytest.raises(CheckpointError, match=r"the setting rope\.factor is 'two'"):
        section.number("factor")
    with pytest.raises(CheckpointError, match="the setting rope is 5, expected an object"):
        config(rope=5).section("rope")


def test_accept_refuses_by_name_and_shortens_long_values() -> None:
    config(act="silu").accept("act", "silu")
    config().accept("act", "silu")
    with pytest.raises(UnsupportedModelError, match="the setting act = 'gelu' is not supported"):
        config(act="gelu").accept("act", "silu")
    with pytest.raises(UnsupportedModelError) as error:
        config(blob=["x" * 500]).accept("blob")
    assert len(error.value.message) < 150


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_SETTINGS))
def test_settings_that_no_family_implements(name: str) -> None:
    for value in UNSUPPORTED_SETTINGS[name]:
        refuse_unsupported(config(**{name: value}))
    with pytest.raises(UnsupportedModelError, match=name):
        refuse_unsupported(config(**{name: 8}))
