"""Tools with ChatGLM3's real tokenizer and template; the weights are random, so calls must be demanded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from convert.tokenizer.vocabularies import document
from engine.contract_specs import SPECS
from generate.tiny_models import write_tiny
from pocketglm.architecture.chatglm3 import OBSERVATION, TOKENIZER, USER
from pocketglm.architecture.templates import load_template
from pocketglm.convert.tokenizer.sentencepiece_model import Surroundings
from pocketglm.generate.model import Model
from pocketglm.serve.tool_calls import Tool, ToolCall
from pocketglm.serve.tool_formats import tool_format
from pocketglm.serve.tool_watch import ToolWatch
from serve.running import NAME, Running, running

VOCAB = 65024
ASSISTANT = 64796
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "城市的天气",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["北京", "Oslo"]}, "days": {"type": "integer", "maximum": 9}},
            "required": ["city"],
        },
    },
}
QUESTION: Any = {"role": "user", "content": "北京的天气？"}


@pytest.fixture(scope="module")
def server(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    around = Surroundings(appended=TOKENIZER.appended_tokens, prefix=TOKENIZER.prefix_tokens)
    path = write_tiny(
        tmp_path_factory.mktemp("chatglm3") / "package",
        replace(SPECS["plain"], vocab_size=VOCAB, max_context=1200),
        generation={"do_sample": False, "eos_token_ids": [2, USER, OBSERVATION]},
        tokenizer=document(shared_data / "chatglm3-tokenizer.model", around),
        template=load_template("chatglm3"),
    )
    with running(path) as started:
        yield started


@pytest.fixture
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
def test_a_demanded_call(client: OpenAI, stream: bool) -> None:
    arguments: dict[str, Any] = {
        "model": NAME,
        "messages": [QUESTION],
        "tools": [WEATHER],
        "tool_choice": "required",
        "max_tokens": 64,
    }
    if stream:
        with client.chat.completions.stream(**arguments) as events:
            for _ in events:
                pass
            found = events.get_final_completion()
    else:
        found = client.chat.completions.create(**arguments)
    assert found.choices[0].finish_reason == "tool_calls"
    assert not found.choices[0].message.content
    (call,) = found.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("北京", "Oslo")


def test_a_conversation_with_a_call_and_its_result(client: OpenAI, server: Running) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "北京"}'}}
    result = {"role": "tool", "tool_call_id": "c1", "content": '{"temperature": 22}'}
    messages: Any = [QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    whole = client.chat.completions.create(model=NAME, messages=messages, tools=[WEATHER], max_tokens=4)
    assert whole.choices[0].finish_reason in ("length", "stop")
    form = tool_format(load_template("chatglm3"))
    prompt = server.model.template.render(form.messages([*messages[:1], *form_messages(messages[1:])], []))
    assert prompt == (
        "[gMASK]<sop><|user|>\n 北京的天气？<|assistant|>weather\n ```python\ntool_call(city='北京')\n```"
        '<|observation|>\n {"temperature": 22}<|assistant|>'
    )


def form_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments as objects, as templates take them."""
    call, result = messages
    (asked,) = call["tool_calls"]
    function = {**asked["function"], "arguments": json.loads(asked["function"]["arguments"])}
    return [{**call, "tool_calls": [{**asked, "function": function}]}, result]


def written(model: Model) -> list[int]:
    """What ChatGLM3 answers: text, then a message with the tool's name and a block of Python."""
    encode = model.tokenizer.encode
    call = "```python\ntool_call(city='北京', days=3)\n```"
    return [*encode("\n"), *encode("好的。"), ASSISTANT, *encode("weather\n"), *encode(call)]


def test_a_call_in_a_free_answer(server: Running) -> None:
    model = server.model
    watch = ToolWatch(tool_format(load_template("chatglm3")), [Tool("weather", {})], parallel=True)
    decoder = model.tokenizer.stream(skip_special=False)
    shown = "".join(watch.feed(decoder.push(token)) for token in written(model))
    rest, calls = watch.finish()
    assert shown + rest == "好的。"
    assert calls == [ToolCall("weather", '{"city": "北京", "days": 3}')]
