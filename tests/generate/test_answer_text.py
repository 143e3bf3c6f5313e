"""The optional clean-up of ChatGLM-6B's answers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketglm.generate.answer_text import tidy_answer


def stepwise(text: str) -> str:
    """The same rule one sign and one side at a time, as upstream goes about it."""
    text = text.strip().replace("[[训练时间]]", "2023年")
    for half, full in zip(",!:;?", "，！：；？", strict=True):
        text = re.sub(rf"([\u4e00-\u9fff]){re.escape(half)}", rf"\1{full}", text)
        text = re.sub(rf"{re.escape(half)}([\u4e00-\u9fff])", rf"{full}\1", text)
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 你好, world! \n", "你好， world!"),
        ("今天是[[训练时间]]?", "今天是2023年？"),
        ("a,b: c;d?e!", "a,b: c;d?e!"),
        ("x?好!!", "x？好！!"),
        ("", ""),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert tidy_answer(text) == expected


@given(st.text("你好a ,!:;?.", max_size=30))
def test_every_text_as_upstream(text: str) -> None:
    assert tidy_answer(text) == stepwise(text)
