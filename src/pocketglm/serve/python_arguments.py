r"""The arguments of a call as ChatGLM3 writes them, in a block of Python:

    ```python
    tool_call(city='Beijing', days=3)
    ```

Enters: such a text, arguments, or a tool's schema. Leaves: JSON, the text, or a grammar. Nothing is
executed: a text is parsed, and only literals are taken.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import warnings
from collections.abc import Mapping
from typing import Any

from pocketglm.errors import InputError
from pocketglm.serve.tool_calls import Tool, json_of_schema, with_definitions, write_json

FUNCTION = "tool_call"
_BLOCK = re.compile(r"```(?:python)?[ \t]*\n(.*?)(?:\n?```\s*)?\Z", re.DOTALL)


def read_python(text: str) -> str | None:
    """JSON text of the arguments, None where the text is no such call."""
    block = _BLOCK.match(text)
    source = (block[1] if block else text).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            call = ast.parse(source, mode="eval").body
            return write_json(_arguments(source, call))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def write_python(arguments: Mapping[str, Any]) -> str:
    """The block that calls with these arguments."""
    named = {name: value for name, value in arguments.items() if _is_name(name)}
    parts = [f"{name}={value!r}" for name, value in named.items()]
    if others := {name: value for name, value in arguments.items() if name not in named}:
        parts.append(f"**{others!r}")
    return f"```python\n{FUNCTION}({', '.join(parts)})\n```"


def python_grammar(tool: Tool) -> str:
    """The block as a term of a Lark grammar; values are written as JSON, which `read_python` takes too.

    Required arguments come first, then the others, each in the order of the schema.
    """
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    if unwritable := [name for name in properties if not _is_name(name)]:
        raise InputError(f"the model cannot write a parameter named {unwritable[0]!r} in a call it must make")
    needed = [name for name in tool.parameters.get("required") or [] if name in properties]
    optional = [name for name in properties if name not in needed]
    terms = {name: f"{json.dumps(f'{name}=')} {_value(tool, properties[name])}" for name in properties}
    inner = ' ", " '.join(terms[name] for name in needed)
    inner += " " + _optional([terms[name] for name in optional], leads=not needed)
    return f"{json.dumps(f'```python{chr(10)}{FUNCTION}(')} {inner} {json.dumps(f'){chr(10)}```')}"


def _is_name(name: str) -> bool:
    """Whether Python takes a name for an argument, and as it is: others are normalized, or keywords."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def _value(tool: Tool, schema: Any) -> str:
    return json_of_schema(with_definitions(schema if isinstance(schema, dict) else {}, tool.parameters))


def _optional(terms: list[str], leads: bool) -> str:
    """Any of the terms in their order; the first one written has no comma before it where it `leads`."""
    followed = " ".join(f'(", " {term})?' for term in terms)
    if not leads or not terms:
        return followed
    ways = [
        " ".join([term, *(f'(", " {later})?' for later in terms[place + 1 :])])
        for place, term in enumerate(terms)
    ]
    return f"({' | '.join(f'({way})' for way in ways)})?"


def _arguments(source: str, call: ast.expr) -> dict[str, Any]:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == FUNCTION):
        raise ValueError("not a call")
    if call.args:
        raise ValueError("arguments without names")
    arguments: dict[str, Any] = {}
    for argument in call.keywords:
        value = _literal(source, argument.value)
        arguments.update(value if argument.arg is None else {argument.arg: value})
    return arguments


def _literal(source: str, value: ast.expr) -> Any:
    """A value as JSON where it is that, so that `true` and escapes have JSON's meaning, else as Python."""
    try:
        return json.loads(ast.get_source_segment(source, value) or "")
    except ValueError:
        return ast.literal_eval(value)
