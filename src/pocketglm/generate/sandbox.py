"""Rendering of Jinja chat templates that nobody has checked.

Enters: a template's source and variables. Leaves: text. A package is untrusted input, so the template
runs in Jinja's sandbox and within limits: on its source, on the steps and the time it takes, and on
every text it makes. What goes past a limit raises `TemplateLimitError` before the memory is used.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 1 << 20
MAX_TEXT = 1 << 23
"""Characters of any text a template makes: eight times the longest context in use, at a token each."""
MAX_STEPS = 250_000
MAX_SECONDS = 10.0
MAX_INTEGER_BITS = 4096

_UNSAFE_STRING_METHODS = frozenset(
    {"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"}
)
"""They make long texts from short ones; no chat template needs them."""
_REMOVED_FILTERS = ("batch", "center", "format", "pprint", "random", "slice", "urlize", "wordwrap", "xmlattr")
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\d{4}|\*)")


class TemplateLimitError(SecurityError):
    """A template went past a limit."""


class TemplateRaisedError(Exception):
    """A template refused its messages with `raise_exception`."""


class _Budget:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.deadline = time.monotonic() + MAX_SECONDS

    def charge(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise TemplateLimitError(f"takes more than {MAX_STEPS} steps")
        if time.monotonic() > self.deadline:
            raise TemplateLimitError(f"takes longer than {MAX_SECONDS:g} seconds")


_budget: ContextVar[_Budget] = ContextVar("template_budget")


def _check_length(length: int) -> None:
    if length > MAX_TEXT:
        raise TemplateLimitError(f"makes a text of more than {MAX_TEXT} characters")


def render(environment: TemplateEnvironment, template: Any, variables: dict[str, Any]) -> str:
    """Render within the limits. Raises what Jinja raises, `TemplateLimitError` among it."""
    token = _budget.set(_Budget())
    try:
        pieces, length = [], 0
        for piece in template.generate(variables):
            length += len(piece)
            _check_length(length)
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _budget.reset(token)


class GenerationTag(Extension):
    """`{% generation %}` marks the answers for training; for us it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as a plain set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Meter(NodeTransformer):
    """Makes a parsed template count its steps and check the texts it joins.

    The inserted calls are filters, whose names a template cannot take over.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's visitor names
        self.generic_visit(node)
        node.iter = _filter(node.iter, "counted")
        node.body.insert(0, nodes.Output([_filter(nodes.Const(""), "step")]))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_filter(nodes.Const(""), "step")]))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "bounded")


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _budget.get().charge()
        yield item


def _step(value: str) -> str:
    _budget.get().charge()
    return value


def _bounded(text: str) -> str:
    _check_length(len(text))
    return text


def _charged_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if numbers:
        _budget.get().charge(
            min(len(range(0, abs(numbers[-1] - numbers[0]) + 1, abs(numbers.step))), MAX_STEPS + 1)
        )
    return numbers


def _to_json(value: Any, indent: int | None = None, **settings: Any) -> str:
    """As the transformers library writes it: no HTML escapes, characters as they are."""
    allowed = {
        name: settings[name] for name in ("ensure_ascii", "separators", "sort_keys") if name in settings
    }
    if indent is not None and not 0 <= int(indent) <= 16:
        raise TemplateLimitError(f"indents JSON by {indent}")
    return _bounded(json.dumps(value, indent=indent, **{"ensure_ascii": False, **allowed}))


def _replace(text: str, old: str, new: str, count: int | None = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    _check_length(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    texts = [str(item[attribute] if attribute is not None else item) for item in items]
    _check_length(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    lead = width if isinstance(width, str) else " " * min(int(width), MAX_TEXT)
    _check_length(len(text) + len(lead) * (text.count("\n") + 1))
    lines = text.split("\n")
    rest = [lead + line if line or blank else line for line in lines[1:]]
    return "\n".join([lead + lines[0] if first else lines[0], *rest])


def _raise_exception(message: str) -> None:
    raise TemplateRaisedError(message)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja set up as the transformers library does it, within limits."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        self.filters |= {"counted": _counted, "step": _step, "bounded": _bounded, "tojson": _to_json}
        self.filters |= {"replace": _replace, "join": _join, "indent": _indent}
        del self.globals["lipsum"]
        self.globals["range"] = _charged_range
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda pattern: now().strftime(pattern)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise TemplateLimitError(f"has {len(source)} characters, expected at most {MAX_SOURCE}")
        tree = super()._parse(source, name, filename)
        metered: nodes.Template = _Meter().visit(tree)
        return metered

    def wrap_str_format(self, value: Any) -> None:
        """Not wrapped, so that `is_safe_attribute` decides about `format` too."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _UNSAFE_STRING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str) and obj == owner.replace:
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and obj == owner.join:
            return _join(args[0] if args else (), owner)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise TemplateLimitError("formats with a very large width")
        if operator in ("*", "+"):
            _check_length(_combined_length(operator, left, right))
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MAX_INTEGER_BITS:
                raise TemplateLimitError("computes a very large number")
        return super().call_binop(context, operator, left, right)


def _combined_length(operator: str, left: Any, right: Any) -> int:
    """Length of a sequence made by repeating or joining; 0 for numbers."""
    sequences = (str, list, tuple)
    if operator == "+":
        return len(left) + len(right) if isinstance(left, sequences) and isinstance(right, sequences) else 0
    if isinstance(left, sequences) and isinstance(right, int):
        return len(left) * right
    return len(right) * left if isinstance(right, sequences) and isinstance(left, int) else 0
