"""Calls of ChatGLM3, which are written as Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generate.tiny_models import END, VOCAB
from pocketglm.errors import InputError
from pocketglm.generate.detokenizer import byte_characters
from pocketglm.generate.model import load
from pocketglm.serve.grammar import GrammarCompiler
from pocketglm.serve.python_arguments import python_grammar, read_python, write_python
from pocketglm.serve.tool_calls import Tool

TOKEN_OF = {byte: sorted(byte_characters().values()).index(c) for byte, c in byte_characters().items()}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_what_is_written_is_read(arguments: dict[str, Any]) -> None:
    found = read_python(write_python(arguments))
    assert found is not None
    assert json.loads(found) == arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\ntool_call(city='Rome', days=2)\n```", {"city": "Rome", "days": 2}),
        ("```python\ntool_call(city='Rome')", {"city": "Rome"}),  # cut off before the block's end
        ("tool_call()", {}),
        ('tool_call(yes=true, no=False, "".x)', None),
        ("tool_call(yes=true, no=False, other=null)", {"yes": True, "no": False, "other": None}),
        (r'tool_call(text="\ud83d\ude00 \/")', {"text": "😀 /"}),
        (r"tool_call(text='\d')", {"text": r"\d"}),
        (r"tool_call(text='\x41')", {"text": "A"}),
        ("tool_call(a=[1, {'b': (2, -3)}])", {"a": [1, {"b": [2, -3]}]}),
    ],
)
def test_read(text: str, expected: dict[str, Any] | None) -> None:
    found = read_python(text)
    assert (None if found is None else json.loads(found)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tool_call",
        "tool_call('Rome')",
        "other(city='Rome')",
        "tool_call(city=open('/etc/passwd').read())",
        "tool_call(city=__import__('os'))",
        "tool_call(x=1e999)",
        "tool_call(x=b'1')",
        "tool_call(x={1, 2})",
        "tool_call(x=1); tool_call(x=2)",
        "tool_call(**['a'])",
        "tool_call(x=" + "(" * 5000,
        "tool_call(x=" + "-" * 50_000 + "1)",
        "tool_call(x='\0')\0",
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert read_python(text) is None


NUMBER = {"type": "integer", "minimum": 1, "maximum": 9}


@pytest.fixture(scope="module")
def compiler(causal_path: Path) -> Iterator[GrammarCompiler]:
    with load(causal_path, "reference") as model:
        yield GrammarCompiler(model.tokenizer, VOCAB, model.defaults.end_tokens)


@pytest.mark.parametrize(
    ("required", "texts", "others"),
    [
        (["b"], ["b=1", "b=1, a=2", "b=1, c=3", "b=1, a=2, c=3"], ["", "a=2", "b=1, c=3, a=2", "b=true"]),
        ([], ["", "a=1", "b=1", "c=1", "a=1, c=1", "a=1, b=1, c=1"], ["a=1,", "c=1, a=1", ", a=1"]),
        (["a", "b", "c"], ["a=1, b=2, c=3"], ["a=1, b=2"]),
    ],
)
def test_a_grammar_takes_what_fits_the_schema(
    compiler: GrammarCompiler, required: list[str], texts: list[str], others: list[str]
) -> None:
    schema = {"type": "object", "properties": dict.fromkeys("abc", NUMBER), "required": required}
    start = compiler.from_lark(f"start: {python_grammar(Tool('t', schema))}")

    def takes(inner: str) -> bool:
        grammar = start.fork()
        for byte in f"```python\ntool_call({inner})\n```".encode():
            token = TOKEN_OF[byte]
            if not np.isfinite(grammar.masked(np.zeros(VOCAB, np.float32))[token]):
                return False
            grammar.accept(token)
        return bool(np.isfinite(grammar.masked(np.zeros(VOCAB, np.float32))[END])) or grammar.finished

    assert [takes(text) for text in texts] == [True] * len(texts)
    assert [takes(text) for text in others] == [False] * len(others)


def test_references_are_found_and_names_must_be_pythons(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": NUMBER}}
    compiler.from_lark(f"start: {python_grammar(Tool('t', schema))}")
    compiler.from_lark(f"start: {python_grammar(Tool('t', {}))}")
    for name in ("a-b", "from", "ª"):
        with pytest.raises(InputError, match=f"'{name}'"):
            python_grammar(Tool("t", {"properties": {name: {}}}))
