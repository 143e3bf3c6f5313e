"""The endpoints: what they answer and what they refuse, in OpenAI's shapes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from generate.tiny_models import VOCAB, write_tiny
from pocketglm.engine.torch.stage import TorchStage
from pocketglm.serve import protocol_answers as answers
from pocketglm.serve.settings import BatchSettings, RequestLimits
from serve.running import NAME, Running, running
from serve.test_guards import refused

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends well."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = response.text.split("\n\n")
    assert found[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in found[:-2]]


def test_a_chat_has_the_text_of_the_model(server: Running) -> None:
    expected = server.model.chat(HELLO, max_new_tokens=20)
    whole = server.chat(max_tokens=20).json()
    answers.ChatAnswer.model_validate(whole)
    assert whole["choices"][0]["message"]["content"] == expected
    assert whole["model"] == NAME
    chunks = events(server.chat(max_tokens=20, stream=True))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == whole["choices"][0]["finish_reason"]
    answers.Timings.model_validate(chunks[-1]["timings"])
    assert not any("usage" in chunk for chunk in chunks)


def test_usage(server: Running) -> None:
    server.chat("The same beginning of a long question", max_tokens=3)
    whole = server.chat("The same beginning of a long question", max_tokens=3, n=2).json()
    usage = whole["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
    chunks = events(server.chat(max_tokens=3, n=2, stream=True, stream_options={"include_usage": True}))
    assert [chunk["usage"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 6
    assert {chunk["choices"][0]["index"] for chunk in chunks[:-1]} == {0, 1}


def test_seeded_choices_differ_and_repeat(server: Running) -> None:
    def ask(seed: int) -> list[str]:
        choices = server.chat(n=3, seed=seed, temperature=1.5, max_tokens=12).json()["choices"]
        return [choice["message"]["content"] for choice in choices]

    first = ask(5)
    assert len(set(first)) == 3
    assert ask(5) == first
    assert ask(-6) != first


def test_completions(server: Running) -> None:
    whole = server.post(PLAIN, prompt=["ab", "cd"], n=2, max_tokens=5, logprobs=2).json()
    answers.CompletionAnswer.model_validate(whole)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    logprobs = whole["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == 5
    assert logprobs["text_offset"][0] == 0
    assert all(
        entry[token] == value
        for entry, token, value in zip(
            logprobs["top_logprobs"], logprobs["tokens"], logprobs["token_logprobs"], strict=True
        )
    )
    ids = server.model.prompt("ab")
    by_ids = server.post(PLAIN, prompt=ids, max_tokens=5).json()["choices"][0]["text"]
    assert by_ids == whole["choices"][0]["text"]
    streamed = events(server.post(PLAIN, prompt=ids, max_tokens=5, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == by_ids


def test_chat_logprobs(server: Running) -> None:
    choice = server.chat(max_tokens=4, logprobs=True, top_logprobs=3, temperature=0).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 4
    for entry in content:
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"])  # greedy
        assert entry["bytes"] == entry["top_logprobs"][0]["bytes"]
        assert len(entry["top_logprobs"]) == 3
    chunks = events(server.chat(max_tokens=4, logprobs=True, stream=True))
    streamed = [e for c in chunks if (p := c["choices"][0]["logprobs"]) for e in p["content"]]
    assert [entry["token"] for entry in streamed] == [entry["token"] for entry in content]


def test_stop_strings_and_biases(server: Running) -> None:
    text = server.chat(max_tokens=20).json()["choices"][0]["message"]["content"]
    stop = text[8:10]
    stopped = server.chat(max_tokens=20, stop=stop).json()["choices"][0]
    assert stopped["message"]["content"] == text[: text.index(stop)]
    assert stopped["finish_reason"] == "stop"
    biased = server.chat(max_tokens=5, logit_bias={"64": 100}).json()["choices"][0]["message"]["content"]
    assert biased == server.model.tokenizer.decode([64] * 5)


def test_json_answers(server: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "yy"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    choice = server.chat(response_format=wanted, temperature=1, seed=1).json()["choices"][0]
    assert json.loads(choice["message"]["content"])["a"] in ("x", "yy")
    assert choice["finish_reason"] == "stop"
    objects = server.chat(response_format={"type": "json_object"}, max_tokens=1).json()["choices"][0]
    assert objects["message"]["content"] == "{"


REFUSALS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"messages": []}, 400, "messages", "at least 1"),
    ({"messages": [{"role": "robot", "content": ""}]}, 400, "messages.0", "robot"),
    ({"model": "gpt-4"}, 404, "model", "there is no model 'gpt-4'"),
    ({"colour": 1}, 400, "colour", "unknown parameter: colour"),
    ({"functions": [{}]}, 400, "functions", "functions is not supported"),
    ({"audio": {}}, 400, "audio", "audio is not supported"),
    ({"modalities": ["audio"]}, 400, "modalities", "not supported"),
    ({"reasoning_effort": "high"}, 400, "reasoning_effort", "not supported"),
    ({"web_search_options": {}}, 400, "web_search_options", "not supported"),
    ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
    ({"temperature": "1"}, 400, "temperature", "valid number"),
    ({"n": 17}, 400, "n", "at most 16"),
    ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
    ({"stop": [""]}, 400, "stop", "1 to 256 characters"),
    ({"stop": ["a"] * 17}, 400, "stop", "at most 16"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias", "no token id"),
    ({"logit_bias": {str(VOCAB): 1}}, 400, "logit_bias", "no token id"),
    ({"top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", "needs stream"),
    ({"tool_choice": "required"}, 400, "tool_choice", "needs tools"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools", "takes no tools"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}}},
        400,
        "response_format",
        "grammar cannot be used",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        400,
        "messages.0.content",
        "image_url parts are not supported",
    ),
    ({"messages": [{"role": "user", "content": "x" * 1300}]}, 400, "messages", "context holds 1200"),
]


@pytest.mark.parametrize(("body", "status", "param", "message"), REFUSALS, ids=lambda v: str(v)[:40])
def test_refusals(server: Running, body: dict[str, Any], status: int, param: str, message: str) -> None:
    response = server.post(CHAT, **{"messages": HELLO, **body})
    assert message in refused(response, status)
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("name", ["suffix", "echo", "best_of"])
def test_completions_refuse_by_name(server: Running, name: str) -> None:
    value = {"suffix": "end", "echo": True, "best_of": 2}[name]
    response = server.post(PLAIN, prompt="a", **{name: value})
    assert f"{name} is not supported" in refused(response, 400)


def test_parameters_that_change_nothing_are_taken(server: Running) -> None:
    harmless = {
        "user": "me",
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "functions": [],
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": ""},
        "response_format": {"type": "text"},
        "tool_choice": "none",
    }
    assert server.chat(max_tokens=1, **harmless).status_code == 200


def test_wrong_bodies_paths_and_methods(server: Running) -> None:
    post = server.client.post
    kind = {"Content-Type": "application/json"}
    assert "not JSON" in refused(post(CHAT, content="{", headers=kind), 400)
    refused(post(CHAT, content="[]", headers=kind), 400)
    refused(post(CHAT, content=b'{"messages": "\xff"}', headers=kind), 400)
    assert "nothing at /v2" in refused(server.client.get("/v2"), 404)
    response = server.client.get(CHAT)
    assert "does not take GET" in refused(response, 405)
    assert response.headers["allow"] == "POST"


def test_a_sliding_window_forgets_the_oldest_turns(server: Running) -> None:
    long = [
        message
        for i in range(20)
        for message in (
            {"role": "user", "content": f"question {i} " + "x" * 60},
            {"role": "assistant", "content": "answer"},
        )
    ]
    body = {"messages": [{"role": "system", "content": "be brief"}, *long, *HELLO], "max_tokens": 2}
    response = server.post(CHAT, **body)
    refused(response, 400)
    assert response.json()["error"]["code"] == "context_length_exceeded"
    whole = server.post(CHAT, **body, context_overflow="sliding_window").json()
    assert whole["usage"]["prompt_tokens"] < 1200
    prompt = [1] * 1500
    refused(server.post(PLAIN, prompt=prompt), 400)
    slid = server.post(PLAIN, prompt=prompt, max_tokens=5, context_overflow="sliding_window").json()
    assert slid["usage"]["completion_tokens"] == 5


def test_embeddings(server: Running) -> None:
    found = server.post("/v1/embeddings", input=["ab", "a longer text"]).json()
    answers.EmbeddingAnswer.model_validate(found)
    vector = np.array(found["data"][1]["embedding"], np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    coded = server.post("/v1/embeddings", input="a longer text", encoding_format="base64").json()
    decoded = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, vector, atol=1e-6)
    refused(server.post("/v1/embeddings", input="x" * 1300), 400)
    refused(server.post("/v1/embeddings", input=[]), 400)
    assert "dimensions" in refused(server.post("/v1/embeddings", input="a", dimensions=2), 400)


def test_tokens(server: Running) -> None:
    text = "Hello <|end|> 世界"
    plain = server.post("/tokenize", text=text).json()
    assert plain["count"] == len(plain["tokens"]) == len(text.encode())
    assert server.post("/tokenize", text=text, special=True).json()["count"] < plain["count"]
    assert server.post("/detokenize", tokens=plain["tokens"]).json() == {"text": text}
    refused(server.post("/detokenize", tokens=[VOCAB]), 400)


def test_models_health_status(server: Running) -> None:
    models = answers.ModelList.model_validate(server.client.get("/v1/models").json())
    assert [card.id for card in models.data] == [NAME]
    assert server.client.get(f"/v1/models/{NAME}").json()["id"] == NAME
    refused(server.client.get("/v1/models/other"), 404)
    assert server.client.get("/health").json() == {"status": "ok"}
    status = answers.Status.model_validate(server.client.get("/v1/pocketglm/status").json())
    assert [block.index for block in status.blocks] == list(range(server.model.spec.num_blocks))
    assert status.context_length == 1200
    assert status.memory.rss_bytes > 10_000_000


def test_metrics(causal_path: Path) -> None:
    with running(causal_path) as server:
        server.chat(max_tokens=4)
        server.chat(max_tokens=4, temperature=9)
        text = server.client.get("/metrics").text
        assert 'pocketglm_http_responses_total{endpoint="/v1/chat/completions",status="200"} 1.0' in text
        assert 'pocketglm_http_responses_total{endpoint="/v1/chat/completions",status="400"} 1.0' in text
        assert "pocketglm_generated_tokens_total 4.0" in text
        assert 'pocketglm_answers_total{finish_reason="length"} 1.0' in text
        assert re.search(r"^pocketglm_running 0.0$", text, re.MULTILINE)


def test_the_state_says_where_every_block_is(causal_path: Path) -> None:
    placement = {"placement": "gpu:0,ram:1,disk:2", "backend": "cpu"}
    with running(causal_path, engine="native", load_settings=placement) as server:
        server.chat(max_tokens=4)
        status = answers.Status.model_validate(server.client.get("/v1/pocketglm/status").json())
        assert [(block.engine, block.place) for block in status.blocks] == [
            ("torch", "gpu"), ("native", "ram"), ("native", "disk"),
        ]  # fmt: skip
        assert status.engine == "torch+native"
        stage = server.model.stages[0]
        assert isinstance(stage, TorchStage)
        assert status.memory.gpu_bytes == stage.weight_bytes() + stage.cache_bytes() > stage.weight_bytes()
        metrics = server.client.get("/metrics").text
        assert 'pocketglm_blocks{engine="torch",place="gpu"} 1.0' in metrics
        assert 'pocketglm_blocks{engine="native",place="disk"} 1.0' in metrics


ENDLESS = {"ignore_eos": True, "context_overflow": "sliding_window", "max_tokens": 10_000_000}


def test_a_full_queue_and_a_client_that_leaves(causal_path: Path) -> None:
    with running(causal_path, batch=BatchSettings(running=1, waiting=0)) as server:
        body = {"messages": HELLO, "stream": True, **ENDLESS}
        with server.client.stream("POST", CHAT, json=body) as stream:
            lines = stream.iter_lines()  # dropping it would close the connection
            next(lines)
            response = server.chat()
            assert "waiting already" in refused(response, 429)
            assert int(response.headers["retry-after"]) >= 1
        for _ in range(1000):  # the connection is closed: the place is free soon
            if server.chat(max_tokens=1).status_code == 200:
                break
        assert server.engine.load_now.running == 0


def test_an_answer_that_takes_too_long(causal_path: Path) -> None:
    with running(causal_path, limits=RequestLimits(request_s=0.2)) as server:
        assert "not done after 0.2 s" in refused(server.chat(**ENDLESS), 504)
        response = server.chat(**ENDLESS, stream=True)
        last = response.text.split("\n\n")[-3:]
        assert "not done after" in json.loads(last[0].removeprefix("data: "))["error"]["message"]
        assert last[1:] == ["data: [DONE]", ""]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A model without a chat template."""
    with running(write_tiny(tmp_path_factory.mktemp("bare") / "package", template=None)) as started:
        yield started


def test_a_model_that_cannot_chat(bare: Running) -> None:
    assert "no chat template" in refused(bare.chat(), 400)
    assert bare.post(PLAIN, prompt="a", max_tokens=1).status_code == 200
    assert bare.client.get("/v1/pocketglm/status").json()["template"] is False


def test_a_model_with_a_bidirectional_context(prefixed_path: Path) -> None:
    with running(prefixed_path) as server:
        expected = server.model.chat(HELLO, max_new_tokens=10)
        assert server.chat(max_tokens=10).json()["choices"][0]["message"]["content"] == expected
        assert "lack <sop>" in refused(server.post(PLAIN, prompt=[1, 2]), 400)
