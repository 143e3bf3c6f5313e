"""Streams in which nothing happens for long, as while a long prompt is computed.

A test holds the model's lock, so that the batch cannot go on until it is given back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from pocketglm.serve.answer_response import COMMENT
from pocketglm.serve.settings import RequestLimits
from serve.running import NAME, Running, running

HELLO: Any = [{"role": "user", "content": "Hello"}]
LINE = COMMENT.decode().strip()


@pytest.fixture
def quick(causal_path: Path) -> Iterator[Running]:
    """A server that is silent for 50 ms at most."""
    with running(causal_path, limits=RequestLimits(silence_s=0.05)) as server:
        yield server


def ask(server: Running, **body: Any) -> Any:
    body = {"messages": HELLO, "stream": True, **body}
    return server.client.stream("POST", "/v1/chat/completions", json=body)


def data(lines: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if line and line != LINE]


def test_comments_until_the_answer_begins(quick: Running) -> None:
    with ExitStack() as held:
        held.enter_context(quick.model.lock)
        with ask(quick, max_tokens=2) as stream:
            lines = stream.iter_lines()
            assert [next(lines) for _ in range(4)] == [LINE, "", LINE, ""]
            held.close()
            *chunks, end = data(lines)
    assert end == "[DONE]"
    assert json.loads(chunks[0])["choices"][0]["delta"]["role"] == "assistant"
    assert json.loads(chunks[-1])["choices"][0]["finish_reason"] in ("stop", "length")


def test_openai_skips_them(quick: Running) -> None:
    with OpenAI(base_url=f"{quick.url}/v1", api_key="none", max_retries=0) as client, ExitStack() as held:
        held.enter_context(quick.model.lock)
        stream = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=3, stream=True)
        held.close()  # the response has begun, and only a comment can have begun it
        chunks = list(stream)
        whole = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=3)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content


def test_an_error_after_a_comment_is_an_event(quick: Running) -> None:
    with ExitStack() as held:
        held.enter_context(quick.model.lock)
        with ask(quick, max_tokens=500, ignore_eos=True) as stream:
            lines = stream.iter_lines()
            assert next(lines) == LINE
            quick.engine.cancel_all()
            held.close()
            *_, error, end = data(lines)
    assert stream.status_code == 200
    assert "shutting down" in json.loads(error)["error"]["message"]
    assert end == "[DONE]"
