"""Tool calls: how a model family writes them, how they are forced, and how they are found in an answer.

Enters: a chat template, the tools of a request, the text of an answer. Leaves: a grammar's source, or the
calls in the text. A template that does not speak of tools makes a model without them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketglm.errors import InputError


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
class ToolFormat:
    """One way to write calls: `before`, a JSON object with the name and the arguments, `after`.

    With `name_first` the name stands before the object, on a line of its own, and the object holds the
    arguments alone.
    """

    name: str
    marks: tuple[str, ...]  # texts in a template that tell this format
    before: str
    after: str
    arguments_key: str
    name_first: bool = False

    def lark(self, tools: Sequence[Tool], parallel: bool) -> str:
        """A grammar of one call of any of the tools, or with `parallel` of one or more."""
        calls = " | ".join(f"call_{index}" for index in range(len(tools)))
        several = f'(separator ({calls}))*\nseparator: "\\n"' if parallel and not self.name_first else ""
        rules = [f"start: ({calls}) {several}".rstrip()]
        rules += [f"call_{index}: {self._call(tool)}" for index, tool in enumerate(tools)]
        return "\n".join(rules)

    def _call(self, tool: Tool) -> str:
        before, after = json.dumps(self.before), json.dumps(self.after)
        if self.name_first:
            return f"{json.dumps(tool.name + chr(10))} %json {_compact(tool.parameters)}"
        schema = {
            "type": "object",
            "properties": {"name": {"const": tool.name}, self.arguments_key: tool.parameters},
            "required": ["name", self.arguments_key],
            "additionalProperties": False,
        }
        # Definitions are found from the schema's root, which the wrapping moves
        definitions = {
            key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters
        }
        parts = [before if self.before else "", f"%json {_compact({**schema, **definitions})}"]
        return " ".join([*filter(None, parts), *([after] if self.after else [])])

    def find(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        """The text that is no call, and the calls, of a whole answer."""
        names = {tool.name for tool in tools}
        if self.name_first:
            return self._find_name_first(text, names)
        if not self.before:
            call = self._read(text.strip(), names)
            return ("", [call]) if call else (text, [])
        calls: list[ToolCall] = []

        def take(match: re.Match[str]) -> str:
            call = self._read(match[1], names)
            if call is None:
                return match[0]
            calls.append(call)
            return ""

        pattern = f"{re.escape(self.before.strip())}(.*?)(?:{re.escape(self.after.strip())}|\\Z)"
        rest = re.sub(pattern, take, text, flags=re.DOTALL)
        return (rest.strip() if calls else rest), calls

    def may_begin(self, text: str, tools: Sequence[Tool]) -> bool:
        """Whether an answer that begins with `text` may still turn out to be, or to hold, a call."""
        if self.before:
            mark = self.before.strip()
            return mark in text or any(text.endswith(mark[:size]) for size in range(1, len(mark)))
        start = text.lstrip()
        if not self.name_first:
            return not start or start.startswith("{")
        return any(start.startswith(f"{t.name}\n") or f"{t.name}\n".startswith(start) for t in tools)

    def _find_name_first(self, text: str, names: set[str]) -> tuple[str, list[ToolCall]]:
        name, _, arguments = text.strip().partition("\n")
        if name.strip() not in names or _object(arguments) is None:
            return text, []
        return "", [ToolCall(name.strip(), arguments.strip())]

    def _read(self, text: str, names: set[str]) -> ToolCall | None:
        found = _object(text)
        if found is None or found.get("name") not in names:
            return None
        arguments = found.get(self.arguments_key, {})
        if not isinstance(arguments, dict):
            return None
        return ToolCall(found["name"], json.dumps(arguments, ensure_ascii=False))


FORMATS = (
    ToolFormat("hermes", ("<tool_call>",), "<tool_call>\n", "\n</tool_call>", "arguments"),
    ToolFormat("llama", ("ipython", '"parameters"'), "", "", "parameters"),
    ToolFormat("glm4", ("<|observation|>",), "", "", "", name_first=True),
)
"""What Qwen and Hermes, Llama 3.1 and later, and GLM-4 were trained to write."""


def tool_format(template: str | None) -> ToolFormat:
    """How the model of a chat template writes calls. Raises `InputError` where it has no tools."""
    if template is None or not re.search(r"\btools\b", template):
        raise InputError(
            "this model's chat template takes no tools", hint="leave out tools, or choose another model"
        )
    for candidate in FORMATS:
        if all(mark in template for mark in candidate.marks):
            return candidate
    known = ", ".join(each.name for each in FORMATS)
    raise InputError(f"this model's way of writing tool calls is not known here (known: {known})")


def _compact(schema: Mapping[str, Any]) -> str:
    options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return json.dumps({**schema, "x-guidance": options})


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
