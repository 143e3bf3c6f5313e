"""Formats per tensor: defaults, the overrides file, its errors, and the JSON form."""

from __future__ import annotations

import json

import pytest

from pocketglm.errors import InputError
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings, head_format

NAMES = [
    f"block.{i}.{layer}"
    for i in range(12)
    for layer in ("attention.qkv", "attention.output", "mlp.gate_up", "mlp.down")
] + ["head"]


@pytest.fixture
def settings_of(tmp_path):
    def read(text, **formats):
        path = tmp_path / "formats.toml"
        path.write_text(text, encoding="utf-8")
        return QuantizeSettings(**formats).with_rules(path)

    return read


RULES = """
[[tensor]]
match = "block.*.mlp.down"
bits = 8

[[tensor]]
match = "block.1?.mlp.down"
group = 128
symmetric = true
search = false
"""


def test_defaults():
    settings = QuantizeSettings(head=WeightFormat(8))
    assert settings.format_for("block.3.attention.qkv", (64, 128)) == WeightFormat(4, 64)
    assert settings.format_for("head", (64, 128)) == WeightFormat(8, 64)


def test_rules_apply_in_order_and_keep_what_they_do_not_set(settings_of):
    settings = settings_of(RULES)
    settings.check_names(NAMES)
    shape = (512, 512)
    assert settings.format_for("block.3.mlp.down", shape) == WeightFormat(8, 64)
    assert settings.format_for("block.11.mlp.down", shape) == WeightFormat(8, 128, True, False)
    assert settings.format_for("block.11.mlp.gate_up", shape) == WeightFormat()
    assert settings.format_for("head", shape) == WeightFormat(8)


def test_head_has_at_least_eight_bits_unless_told_otherwise():
    assert head_format(WeightFormat(4, 32)) == WeightFormat(8, 32)
    assert head_format(WeightFormat(16)) == WeightFormat(16)
    assert head_format(WeightFormat(4), 4) == WeightFormat(4)


def test_rules_reach_the_head_and_float_formats(settings_of):
    settings = settings_of('[[tensor]]\nmatch = "head"\nbits = 16\n')
    assert settings.format_for("head", (64, 64)).bits == 16
    assert settings.format_for("block.0.mlp.down", (64, 64)).bits == 4


@pytest.mark.parametrize(
    ("inputs", "group"), [(16, 32), (32, 32), (33, 64), (64, 64), (65, 128), (4096, 128)]
)
def test_group_is_no_wider_than_the_row_needs(inputs, group):
    settings = QuantizeSettings(WeightFormat(4, 128))
    assert settings.format_for("block.0.mlp.down", (8, inputs)).group == group
    assert QuantizeSettings(WeightFormat(4, 0)).format_for("block.0.mlp.down", (8, inputs)).group == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[tensor]]\nmatch = "a"\nbits = 5', r"rule 1 \(a\): bits is 5, expected one of 32, 16, 8, 4"),
        ('[[tensor]]\nmatch = "a"\nbits = "4"', "bits is '4'"),
        ('[[tensor]]\nmatch = "a"\nbits = 4.0', "bits is 4.0"),
        ('[[tensor]]\nmatch = "a"\ngroup = 100', "group is 100"),
        ('[[tensor]]\nmatch = "a"\ngroup = false', "group is False"),
        ('[[tensor]]\nmatch = "a"\nsymmetric = 1', "symmetric is 1, expected one of true, false"),
        ('[[tensor]]\nmatch = "a"\nbit = 4', "unknown key 'bit'"),
        ('[[tensor]]\nmatch = "a"\nbits = 4\n[[tensor]]\nbits = 8', "rule 2: match is None"),
        ("[[tensor]]\nmatch = 3\nbits = 8", "match is 3"),
        ('[[tensor]]\nmatch = "a"', "sets nothing"),
        ('[[tensors]]\nmatch = "a"', "unknown key 'tensors'"),
        ('[tensor]\nmatch = "a"', "is one table"),
        ("tensor = [3]", "expected a table"),
        ("[[tensor]", "not valid TOML"),
    ],
)
def test_bad_files_are_refused_by_name(settings_of, text, problem):
    with pytest.raises(InputError, match=rf"formats\.toml.*{problem}"):
        settings_of(text)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent\.toml: cannot be read"):
        QuantizeSettings().with_rules(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        QuantizeSettings().with_rules(tmp_path / "binary.toml")


def test_rule_that_matches_nothing_is_refused(settings_of):
    settings = settings_of('[[tensor]]\nmatch = "block.*.mlp.dwon"\nbits = 8')
    with pytest.raises(InputError, match=r"formats\.toml: rule 1: 'block.*dwon' matches no") as error:
        settings.check_names(NAMES)
    assert error.value.hint is not None
    assert "block.0.attention.qkv" in error.value.hint


def test_json_form_round_trips(settings_of):
    settings = settings_of(RULES, block=WeightFormat(8, 0, True), head=WeightFormat(16))
    text = json.dumps(settings.to_dict())
    assert QuantizeSettings.from_dict(json.loads(text)) == settings
    assert json.dumps(QuantizeSettings.from_dict(json.loads(text)).to_dict()) == text


@pytest.mark.parametrize("path", [("block",), ("head", "bits"), ("rules",), ("block", "group")])
@pytest.mark.parametrize("value", [None, "x", 7])
def test_damaged_json_is_refused(path, value):
    data = json.loads(json.dumps(QuantizeSettings().to_dict()))
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(InputError, match="manifest"):
        QuantizeSettings.from_dict(data, "manifest.json")
    del target[path[-1]]
    with pytest.raises(InputError, match="manifest"):
        QuantizeSettings.from_dict(data, "manifest.json")
