"""Calls as the GLM family writes them: a message whose first line is the tool's name.

Enters: an answer, or a conversation with calls. Leaves: text and calls, or messages with `metadata`. An
answer may be several messages, parted by `<|assistant|>`: text without a name, then a call.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketglm.serve.python_arguments import python_grammar, read_python, write_python
from pocketglm.serve.tool_calls import (
    Tool,
    ToolCall,
    ToolFormat,
    choice_of_calls,
    json_of_schema,
    read_object,
    without_beginning_of,
)

NEXT_MESSAGE = "<|assistant|>"


@dataclass(frozen=True)
class NamedCalls(ToolFormat):
    """The name, a line break, the arguments. With `tools_in_message` the template finds the tools in the
    system message instead of a variable of its own."""

    tools_in_message: bool = False

    @abstractmethod
    def arguments_grammar(self, tool: Tool) -> str:
        """The arguments as a term of a Lark grammar."""

    @abstractmethod
    def read_arguments(self, text: str) -> str | None:
        """JSON text of the arguments, None where the text is none."""

    @abstractmethod
    def write_arguments(self, arguments: Mapping[str, Any]) -> str:
        """The reverse."""

    def lark(self, tools: Sequence[Tool], parallel: bool) -> str:
        named = [f"{json.dumps(tool.name + chr(10))} {self.arguments_grammar(tool)}" for tool in tools]
        return choice_of_calls(named)

    def read(self, text: str, tools: Sequence[Tool], ended: bool) -> tuple[str, list[ToolCall]]:
        if not ended:
            text = without_beginning_of(NEXT_MESSAGE, text)
        *complete, last = text.split(NEXT_MESSAGE)
        shown, calls = "", list[ToolCall]()
        for message in [*complete, last] if ended or not _may_call(last, tools) else complete:
            call = self._call(message, tools)
            if call is not None:
                calls.append(call)
            elif shown:
                shown += message
            else:
                header, _, rest = message.partition("\n")
                shown = message if header.strip() else rest.lstrip()
        return (shown.rstrip() if calls and ended else shown), calls

    def messages(self, messages: Sequence[dict[str, Any]], tools: Sequence[Any]) -> list[dict[str, Any]]:
        written = [each for message in messages for each in self._messages_of(message)]
        if not (tools and self.tools_in_message):
            return written
        if not written or written[0]["role"] != "system":
            written.insert(0, {"role": "system", "content": ""})
        return [{**written[0], "tools": list(tools)}, *written[1:]]

    def _messages_of(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One message for the text, one for each call; a result is an observation."""
        if message["role"] == "tool":
            return [{"role": "observation", "content": message["content"]}]
        calls = message.get("tool_calls") or []
        if not calls:
            return [dict(message)]
        text = [{"role": "assistant", "content": message["content"]}] if message["content"] else []
        return text + [self._call_message(call["function"]) for call in calls]

    def _call_message(self, function: Mapping[str, Any]) -> dict[str, Any]:
        arguments = function["arguments"]
        written = self.write_arguments(arguments) if isinstance(arguments, Mapping) else str(arguments)
        return {"role": "assistant", "metadata": function["name"], "content": written}

    def _call(self, message: str, tools: Sequence[Tool]) -> ToolCall | None:
        name, _, rest = message.strip().partition("\n")
        if name.strip() not in {tool.name for tool in tools}:
            return None
        arguments = self.read_arguments(rest.strip())
        return None if arguments is None else ToolCall(name.strip(), arguments)


@dataclass(frozen=True)
class JsonArguments(NamedCalls):
    """GLM-4's: a JSON object."""

    def arguments_grammar(self, tool: Tool) -> str:
        return json_of_schema(tool.parameters)

    def read_arguments(self, text: str) -> str | None:
        return None if read_object(text) is None else text

    def write_arguments(self, arguments: Mapping[str, Any]) -> str:
        return json.dumps(arguments, ensure_ascii=False)


@dataclass(frozen=True)
class PythonArguments(NamedCalls):
    """ChatGLM3's: a block of Python that calls `tool_call`."""

    def arguments_grammar(self, tool: Tool) -> str:
        return python_grammar(tool)

    def read_arguments(self, text: str) -> str | None:
        return read_python(text)

    def write_arguments(self, arguments: Mapping[str, Any]) -> str:
        return write_python(arguments)


def _may_call(message: str, tools: Sequence[Tool]) -> bool:
    """Whether a message that begins so may turn out to be a call."""
    start = message.lstrip()
    return any(start.startswith(f"{tool.name}\n") or f"{tool.name}\n".startswith(start) for tool in tools)
