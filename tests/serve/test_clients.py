"""Official clients against a running server with SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from serve.running import NAME, Running

MESSAGES: Any = [{"role": "user", "content": "What is ice?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "days": {"type": "integer", "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def client(smollm2_server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{smollm2_server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def tool_client(tool_server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{tool_server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_chat(client: OpenAI, smollm2_server: Running) -> None:
    whole = client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=24, temperature=0)
    text = whole.choices[0].message.content
    assert text is not None
    assert text.startswith("Ice is")
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    parts: list[str] = []
    stream = client.chat.completions.create(
        model=NAME,
        messages=MESSAGES,
        max_tokens=24,
        temperature=0,
        stream=True,
        seed=1,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        parts += [choice.delta.content or "" for choice in chunk.choices]
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens == 24
    # The kept prefix leaves one row to compute, with which the engine may round otherwise than with many
    assert "".join(parts).startswith("Ice is")


def test_choices_stop_and_logprobs(client: OpenAI) -> None:
    whole = client.chat.completions.create(
        model=NAME,
        messages=MESSAGES,
        max_completion_tokens=16,
        n=2,
        seed=3,
        temperature=1.0,
        stop=["."],
        logprobs=True,
        top_logprobs=2,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        logit_bias={"5": -100},
    )
    assert len(whole.choices) == 2
    for choice in whole.choices:
        assert "." not in (choice.message.content or "")
        assert choice.logprobs is not None
        assert choice.logprobs.content
        assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_completions_and_embeddings(client: OpenAI) -> None:
    plain = client.completions.create(model=NAME, prompt="The capital of France is", max_tokens=3, logprobs=1)
    assert "Paris" in plain.choices[0].text
    assert plain.choices[0].logprobs is not None
    texts = ["A cat sleeps.", "A cat is sleeping.", "Bond yields rose sharply"]
    data = client.embeddings.create(model=NAME, input=texts).data  # asks for base64 by itself
    one, two, other = (entry.embedding for entry in data)

    def likeness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert likeness(one, two) > likeness(one, other)


def test_json_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "maximum": 120},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    whole = client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "Describe a person as JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": schema, "strict": True},
        },
        max_tokens=80,
    )
    assert set(json.loads(whole.choices[0].message.content or "")) == {"name", "age"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_tools(tool_client: OpenAI, choice: Any, stream: bool) -> None:
    arguments: dict[str, Any] = {
        "model": NAME,
        "messages": [{"role": "user", "content": "What will the weather in Oslo be?"}],
        "tools": [WEATHER],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 80,
    }
    if stream:
        with tool_client.chat.completions.stream(**arguments) as events:
            for _ in events:
                pass
            found = events.get_final_completion()
    else:
        found = tool_client.chat.completions.create(**arguments)
    assert found.choices[0].finish_reason == "tool_calls"
    (call,) = found.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}


def test_a_conversation_with_tool_results(tool_client: OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages: Any = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    whole = tool_client.chat.completions.create(model=NAME, messages=messages, tools=[WEATHER], max_tokens=8)
    assert whole.choices[0].finish_reason in ("length", "stop")


def test_errors_are_those_the_client_knows(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=MESSAGES, tools=[WEATHER])
    assert caught.value.param == "tools"
    assert [model.id for model in client.models.list()] == [NAME]


def test_langchain(smollm2_server: Running) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    chat = ChatOpenAI(
        base_url=f"{smollm2_server.url}/v1",
        api_key=SecretStr("none"),
        model=NAME,
        temperature=0,
        max_completion_tokens=12,
    )
    assert str(chat.invoke("What is ice?").content).startswith("Ice")
    assert "".join(str(chunk.content) for chunk in chat.stream("What is ice?")).startswith("Ice")
