"""Tool calls: what every way of writing them has in common.

Enters: the tools of a request, the text of an answer. Leaves: a grammar's source, or the calls in the text.
The ways themselves are in `tool_formats.py` and `named_calls.py`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tool:
    """A function that may be called; `parameters` is a JSON schema."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """A call found in an answer. `arguments` is JSON text, as OpenAI's interface has it."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ToolFormat(ABC):
    """One way to write calls. A chat template that has all `marks` belongs to a model that writes so."""

    name: str
    marks: tuple[str, ...]

    @abstractmethod
    def lark(self, tools: Sequence[Tool], parallel: bool) -> str:
        """A grammar of one call of any of the tools, or with `parallel`, where the model can, of several.

        Raises `InputError` for parameters that cannot be written so.
        """

    @abstractmethod
    def read(self, text: str, tools: Sequence[Tool], ended: bool) -> tuple[str, list[ToolCall]]:
        """The text that is certainly no call, and the calls, of an answer that `ended` or is under way.

        While an answer is under way, longer texts give longer results: what was shown stays.
        """

    def messages(self, messages: Sequence[dict[str, Any]], tools: Sequence[Any]) -> list[dict[str, Any]]:
        """A conversation with `tool_calls` and results, in the fields that the model's template reads."""
        return list(messages)


def choice_of_calls(calls: Sequence[str], more: str = "") -> str:
    """A Lark grammar of any of `calls`; `more` follows it in the first rule."""
    names = " | ".join(f"call_{index}" for index in range(len(calls)))
    return "\n".join(
        [f"start: ({names}) {more}".rstrip(), *(f"call_{index}: {call}" for index, call in enumerate(calls))]
    )


def json_of_schema(schema: Mapping[str, Any]) -> str:
    """The texts that fit a JSON schema, in one line each, as a term of a Lark grammar."""
    options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def with_definitions(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that was a part of `root`, with the definitions that references look for at the root."""
    return {**schema, **{key: root[key] for key in ("$defs", "definitions") if key in root}}


def read_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, or None. NaN and infinities, which JSON has not, are refused."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_json(value: Any) -> str | None:
    """JSON text, or None for what JSON has not. Halves of surrogate pairs stay escapes: UTF-8 has none."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text if text.isascii() or _is_unicode(text) else json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return None


def without_beginning_of(mark: str, text: str) -> str:
    """`text` without an ending that may become `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return text[:-size]
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
