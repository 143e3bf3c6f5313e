"""The ways in which models write tool calls, and which of them a chat template belongs to.

Enters: a chat template. Leaves: a `ToolFormat`. A template that does not speak of tools makes a model
without them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pocketglm.errors import InputError
from pocketglm.serve.named_calls import JsonArguments, NamedCalls, PythonArguments
from pocketglm.serve.tool_calls import (
    Tool,
    ToolCall,
    ToolFormat,
    choice_of_calls,
    json_of_schema,
    read_object,
    with_definitions,
    without_beginning_of,
    write_json,
)


@dataclass(frozen=True)
class ObjectCalls(ToolFormat):
    """A JSON object with the name and, at `arguments_key`, the arguments: the whole answer."""

    arguments_key: str

    def lark(self, tools: Sequence[Tool], parallel: bool) -> str:
        return choice_of_calls([self._object(tool) for tool in tools])

    def read(self, text: str, tools: Sequence[Tool], ended: bool) -> tuple[str, list[ToolCall]]:
        start = text.lstrip()
        if not ended:
            return ("" if not start or start.startswith("{") else text), []
        call = self._call(text.strip(), tools)
        return ("", [call]) if call else (text, [])

    def _object(self, tool: Tool) -> str:
        schema = {
            "type": "object",
            "properties": {"name": {"const": tool.name}, self.arguments_key: tool.parameters},
            "required": ["name", self.arguments_key],
            "additionalProperties": False,
        }
        return json_of_schema(with_definitions(schema, tool.parameters))

    def _call(self, text: str, tools: Sequence[Tool]) -> ToolCall | None:
        found = read_object(text)
        if found is None or found.get("name") not in {tool.name for tool in tools}:
            return None
        arguments = found.get(self.arguments_key, {})
        written = write_json(arguments) if isinstance(arguments, dict) else None
        return None if written is None else ToolCall(found["name"], written)


@dataclass(frozen=True)
class MarkedCalls(ObjectCalls):
    """Such objects between two marks, each on a line of its own, with text before, between and after."""

    before: str
    after: str

    def lark(self, tools: Sequence[Tool], parallel: bool) -> str:
        names = " | ".join(f"call_{index}" for index in range(len(tools)))
        more = f'(separator ({names}))*\nseparator: "\\n"' if parallel else ""
        before, after = json.dumps(f"{self.before}\n"), json.dumps(f"\n{self.after}")
        return choice_of_calls([f"{before} {self._object(tool)} {after}" for tool in tools], more)

    def read(self, text: str, tools: Sequence[Tool], ended: bool) -> tuple[str, list[ToolCall]]:
        start = text.find(self.before)
        if not ended:
            shown = without_beginning_of(self.before, text) if start < 0 else text[:start]
            return (shown if shown.strip() else ""), []
        calls: list[ToolCall] = []

        def take(match: re.Match[str]) -> str:
            call = self._call(match[1], tools)
            if call is None:
                return match[0]
            calls.append(call)
            return ""

        pattern = f"{re.escape(self.before)}(.*?)(?:{re.escape(self.after)}|\\Z)"
        rest = re.sub(pattern, take, text, flags=re.DOTALL)
        return (rest.rstrip() if calls else rest), calls


FORMATS: tuple[ToolFormat, ...] = (
    MarkedCalls("hermes", ("<tool_call>",), "arguments", "<tool_call>", "</tool_call>"),
    ObjectCalls("llama", ("ipython", '"parameters"'), "parameters"),
    PythonArguments("chatglm3", ("<|observation|>", "You have access to the following tools")),
    JsonArguments("glm4", ("<|observation|>",)),
)
"""What Qwen and Hermes, Llama 3.1 and later, ChatGLM3, and GLM-4 were trained to write."""

_IN_A_MESSAGE = re.compile(r"\w\[['\"]tools['\"]\]")


def tool_format(template: str | None) -> ToolFormat:
    """How the model of a chat template writes calls. Raises `InputError` where it has no tools."""
    if template is None or not re.search(r"\btools\b", template):
        raise InputError(
            "this model's chat template takes no tools", hint="leave out tools, or choose another model"
        )
    for candidate in FORMATS:
        if all(mark in template for mark in candidate.marks):
            if isinstance(candidate, NamedCalls) and _IN_A_MESSAGE.search(template):
                return dataclasses.replace(candidate, tools_in_message=True)
            return candidate
    known = ", ".join(each.name for each in FORMATS)
    raise InputError(
        f"this model's way of writing tool calls is not known here (known: {known})",
        hint="leave out tools, or choose another model",
    )
