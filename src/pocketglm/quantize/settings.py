"""Which format each linear layer is stored in: defaults, and overrides from a small TOML file.

    [[tensor]]
    match = "block.*.mlp.down"     # names as in the package: block.3.attention.qkv, head
    bits = 8                       # 32, 16, 8 or 4
    group = 64                     # 32, 64, 128, or 0 for one group per row
    symmetric = false
    search = true                  # false: round to nearest

Keys that a rule leaves out stay as they are. Rules apply in order, so a later one wins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pocketglm.errors import InputError
from pocketglm.quantize.formats import GROUPS, WeightFormat

HEAD = "head"
"""Canonical name of the output projection."""

KEYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "bits": (int, (32, 16, 8, 4)),
    "group": (int, GROUPS),
    "symmetric": (bool, (True, False)),
    "search": (bool, (True, False)),
}
"""What a rule may set: type and allowed values."""


LEAST_HEAD_BITS = 8
"""The head's errors go straight into the logits, and nothing after it averages them out: an int4 head
costs SmolLM2 5.8% of perplexity where int4 blocks cost nothing (docs/decisions/0003-int8-head.md)."""


def head_format(block: WeightFormat, bits: int | None = None) -> WeightFormat:
    """The head's format beside blocks of format `block`: `bits`, or at least int8 if left out."""
    found = max(block.bits, LEAST_HEAD_BITS) if bits is None else bits
    return replace(block, bits=found)  # type: ignore[arg-type]  # checked there


@dataclass(frozen=True)
class FormatRule:
    """Changes the format of the layers whose name `match` (a shell pattern) fits. None: unchanged."""

    match: str
    bits: int | None = None
    group: int | None = None
    symmetric: bool | None = None
    search: bool | None = None

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.match)

    def apply(self, fmt: WeightFormat) -> WeightFormat:
        return replace(fmt, **{key: value for key, value in self.to_dict().items() if key != "match"})

    def to_dict(self) -> dict[str, Any]:
        """Only what the rule sets, as in the file."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: object, where: str) -> FormatRule:
        """Rule of parsed TOML or JSON; `where` names file and rule in the InputError of a bad one."""
        if not isinstance(data, Mapping):
            raise InputError(f"is {data!r}, expected a table", where=where)
        match = data.get("match")
        if not isinstance(match, str) or not match:
            raise InputError(f"match is {match!r}, expected a name pattern", where=where)
        where = f"{where} ({match})"
        for key, value in data.items():
            if key != "match":
                _check_key(key, value, where)
        if len(data) == 1:
            raise InputError("sets nothing", where=where, hint=f"set one of {', '.join(KEYS)}")
        return cls(**data)


def _check_key(key: str, value: object, where: str) -> None:
    if key not in KEYS:
        raise InputError(f"unknown key {key!r}, expected match, {', '.join(KEYS)}", where=where)
    kind, allowed = KEYS[key]
    if type(value) is not kind or value not in allowed:
        choices = ", ".join(str(choice).lower() for choice in allowed)
        raise InputError(f"{key} is {value!r}, expected one of {choices}", where=where)


@dataclass(frozen=True)
class QuantizeSettings:
    """Formats of a conversion: of the blocks' layers, of the head, and rules for any of them."""

    block: WeightFormat = field(default_factory=WeightFormat)
    head: WeightFormat = field(default_factory=lambda: head_format(WeightFormat()))
    rules: tuple[FormatRule, ...] = ()
    rules_file: str | None = field(default=None, compare=False)  # for messages only

    def with_rules(self, path: Path) -> QuantizeSettings:
        """These settings with the rules of TOML file `path`. Raises InputError for a bad file."""
        return replace(self, rules=read_rules(path), rules_file=str(path))

    def format_for(self, name: str, shape: tuple[int, ...]) -> WeightFormat:
        """Format of linear layer `name` with weight [out, in].

        A layer with fewer inputs than its group takes the smallest group that holds them: one group a
        row either way, with less padding.
        """
        fmt = self.head if name == HEAD else self.block
        for rule in self.rules:
            if rule.matches(name):
                fmt = rule.apply(fmt)
        fitting = [group for group in GROUPS if shape[1] <= group < fmt.group]
        return replace(fmt, group=min(fitting)) if fitting else fmt

    def check_names(self, names: Iterable[str]) -> None:
        """Raise InputError if a rule matches none of the model's linear layers `names`."""
        known = list(names)
        for number, rule in enumerate(self.rules, 1):
            if not any(rule.matches(name) for name in known):
                raise InputError(
                    f"{rule.match!r} matches no linear layer of this model",
                    where=_rule_name(self.rules_file, number),
                    hint=f"layers are named like {', '.join(known[:2] + known[-1:])}",
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, the same for the same settings."""
        rules = [rule.to_dict() for rule in self.rules]
        return {"block": asdict(self.block), "head": asdict(self.head), "rules": rules}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "quantize settings") -> QuantizeSettings:
        """Settings of their JSON form. Raises InputError that names what is wrong."""
        _check_fields(data, {"block", "head", "rules"}, where)
        if not isinstance(data["rules"], list):
            raise InputError("rules is not a list", where=where)
        rules = [FormatRule.from_dict(rule, _rule_name(where, i)) for i, rule in enumerate(data["rules"], 1)]
        block, head = (_format_from_dict(data[key], f"{where}: {key}") for key in ("block", "head"))
        return cls(block, head, tuple(rules))


def read_rules(path: Path) -> tuple[FormatRule, ...]:
    """Rules of a TOML file, checked. Raises InputError naming file and rule."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not valid TOML: {error}", where=path) from None
    unknown = sorted(data.keys() - {"tensor"})
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}, expected [[tensor]] tables", where=path)
    tables = data.get("tensor", [])
    if not isinstance(tables, list):
        raise InputError("[tensor] is one table, expected [[tensor]]", where=path)
    return tuple(FormatRule.from_dict(table, _rule_name(path, i)) for i, table in enumerate(tables, 1))


def _rule_name(where: object, number: int) -> str:
    return f"{where or 'quantize settings'}: rule {number}"


def _format_from_dict(data: object, where: str) -> WeightFormat:
    _check_fields(data, {item.name for item in fields(WeightFormat)}, where)
    values: Mapping[str, Any] = data  # type: ignore[assignment]
    for key, value in values.items():
        _check_key(key, value, where)
    return WeightFormat(**values)


def _check_fields(data: object, names: set[str], where: str) -> None:
    if not isinstance(data, Mapping) or set(data) != names:
        found = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else repr(data)
        raise InputError(f"has fields {found}, expected {', '.join(sorted(names))}", where=where)
