"""The protocol: bad requests, stopping, limits, the end. Whatever comes in, the engine answers and lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pocketglm
from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from executable.engine_process import TIMEOUT, EngineProcess, Event, engine_command
from pocketglm.package.reader import Package
from pocketglm.plan.native_memory import block_sizes, buffer_bytes, cache_bytes, head_file_bytes, work_bytes

# Big enough that an answer of its whole context cannot end before a stop gets there
SLOW = replace(SPECS["plain"], hidden_size=256, intermediate_size=1024, num_blocks=12, max_context=200_000)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = SPECS["plain"]
    return write_package(
        tmp_path_factory.mktemp("plain") / "p", spec, random_tensors(spec), FORMATS["float32"]
    )


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(
        tmp_path_factory.mktemp("slow") / "p", SLOW, random_tensors(SLOW), FORMATS["int8-g64"]
    )


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


def test_it_says_who_it_is() -> None:
    with EngineProcess() as engine:
        assert engine.ready["protocol"] == 1
        assert engine.ready["engine"] == pocketglm.__version__
        assert "scalar" in engine.ready["isa"]


REFUSED: list[tuple[str, bytes, str]] = [
    ("json", b"{", "not JSON"),
    ("json", b"nonsense", "no JSON value"),
    ("json", b'{"command":"stats"} 1', "something follows"),
    ("json", b'{"command":"stats","command":"stats"}', "occurs twice"),
    ("json", b'{"command":"stats","id":"\xff"}', "UTF-8"),
    ("json", b'{"command":"stats","id":"\\ud800"}', "surrogate"),
    ("json", b'{"command":"stats","id":"a\tb"}', "control character"),
    ("json", b"[" * 100_000, "nested deeper than 8"),
    ("json", b'{"a":' * 100, "nested deeper than 8"),
    ("json", b'{"command":1e999}', "too large"),
    ("json", b'{"command":01}', "'}' is missing"),
    ("json", b'{"command":NaN}', "no JSON value"),
    ("json", b'{"command":"\\x"}', "unknown escape"),
    ("request", b"[]", "must be an object"),
    ("request", b"{}", "lacks: command"),
    ("request", b'{"command":"dance"}', 'command is "dance"'),
    ("request", b'{"command":"stats","mood":1}', "unknown fields: mood"),
    ("request", b'{"command":"stats","id":7}', "id is 7"),
    ("request", json.dumps({"command": "stats", "id": "x" * 201}).encode(), "longer than 200"),
    ("request", b'{"command":"load"}', "lacks: package"),
    ("request", b'{"command":"load","package":""}', "path is empty"),
    ("request", b'{"command":"load","package":"a\\u0000b"}', "holds a zero"),
    ("request", b'{"command":"load","package":"x","threads":-1}', "threads is -1"),
    ("request", b'{"command":"load","package":"x","kv":"int4"}', 'kv is "int4"'),
    ("request", b'{"command":"load","package":"x","memory":0}', "memory is 0"),
    ("request", b'{"command":"generate"}', "lacks: tokens"),
    ("request", b'{"command":"generate","tokens":[]}', "tokens is empty"),
    ("request", b'{"command":"generate","tokens":[1.5]}', "holds 1.5"),
    ("request", b'{"command":"generate","tokens":[-1]}', "holds -1"),
    ("request", b'{"command":"generate","tokens":[99999999999999999999]}', "holds 1e+20"),
    ("request", b'{"command":"generate","tokens":[1],"seed":-1}', "seed is -1"),
    ("request", b'{"command":"generate","tokens":[1],"logit_bias":{"x":1}}', "logit_bias"),
    ("request", b'{"command":"generate","tokens":[1],"logit_bias":{"99999999999":1}}', "logit_bias"),
    ("request", b'{"command":"generate","tokens":[1],"temperature":"hot"}', 'temperature is "hot"'),
    ("not_loaded", b'{"command":"generate","tokens":[1]}', "no model is loaded"),
]


@pytest.mark.parametrize(("code", "line", "message"), REFUSED, ids=[f"{r[0]}-{r[2]}" for r in REFUSED])
def test_bad_requests_are_refused_one_by_one(
    engine: EngineProcess, code: str, line: bytes, message: str
) -> None:
    engine.send_bytes(line + b"\n")
    event = engine.next()
    assert (event["event"], event["code"]) == ("error", code)
    assert message in event["message"]
    assert engine.ask(command="stats", id="still there")["id"] == "still there"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": [50]}, "token id 50 is outside the vocabulary of 50"),
        ({"logit_bias": {"50": 1}}, "token id 50"),
        ({"end_tokens": [50], "ignore_end": True}, "token id 50"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": 101}, "temperature is 101"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.5}, "min_p is -0.5"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"frequency_penalty": 1000}, "frequency_penalty is 1000"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(
    engine: EngineProcess, package: Path, settings: dict[str, Any], message: str
) -> None:
    engine.load(package)
    event = engine.ask(**{"command": "generate", "tokens": [1], "id": "x", **settings})
    assert (event["event"], event["code"], event["id"]) == ("error", "request", "x")
    assert message in event["message"]
    assert engine.generate([1], max_tokens=2)[1]["generated_tokens"] == 2


def test_prompts_that_fill_the_context_are_refused(engine: EngineProcess, package: Path) -> None:
    engine.load(package)
    event = engine.ask(command="generate", tokens=[1] * 512)
    assert (event["code"], "hint" in event) == ("context", True)
    found, done = engine.generate([1] * 511)
    assert (len(found), done["reason"]) == (1, "length")


def test_no_tokens_wanted(engine: EngineProcess, package: Path) -> None:
    engine.load(package)
    found, done = engine.generate([1, 2, 3], max_tokens=0)
    assert (found, done["reason"]) == ([], "length")
    assert engine.ask(command="stats")["cached_tokens"] == 3


def test_chatglm_prompts_need_their_marks(engine: EngineProcess, tmp_path: Path) -> None:
    spec = SPECS["prefix_2d_alpha_layernorm_gelu"]
    engine.load(write_package(tmp_path / "p", spec, random_tensors(spec), FORMATS["float32"]))
    for tokens, message in (([1, 2, 3], "lacks <sop>"), ([1, 42, 3], "no [gMASK]")):
        event = engine.ask(command="generate", tokens=tokens)
        assert (event["code"], "[gMASK]" in event["hint"]) == ("request", True)
        assert message in event["message"]
    assert engine.ask(command="stats")["cached_tokens"] == 0


def test_a_stop_ends_a_running_answer(engine: EngineProcess, slow: Path) -> None:
    engine.load(slow)
    engine.send(command="generate", id="a", tokens=[1, 2])
    engine.send(command="generate", id="b", tokens=[1, 2], max_tokens=3)
    assert engine.next()["event"] == "token"
    engine.send(command="stop", id="a")
    # Two threads write: that the stop was heard may be said after what it did, even among the tokens of b
    events = []
    while sum(event["event"] in ("stopping", "done") for event in events) < 3:
        events.append(engine.next())
    assert sum(event["event"] == "stopping" for event in events) == 1
    answers = [event for event in events if event["event"] != "stopping"]
    of_a, of_b = ([event for event in answers if event["id"] == name] for name in "ab")
    assert (of_a[-1]["event"], of_a[-1]["reason"]) == ("done", "interrupted")
    assert [event["event"] for event in of_b] == ["token"] * 3 + ["done"]
    engine.ask(command="stats")  # a stop may still count an answer whose end was just said
    assert engine.ask(command="stop") == {"event": "stopping", "answers": 0}


def test_a_stop_without_an_id_ends_all_answers(engine: EngineProcess, slow: Path) -> None:
    engine.load(slow)
    for name in "abc":
        engine.send(command="generate", id=name, tokens=[1, 2])
    engine.next()
    engine.send(command="stop")
    ends, stopping = {}, 0
    while len(ends) < 3 or not stopping:
        event = engine.next()
        if event["event"] == "stopping":
            stopping = event["answers"]
        if event["event"] == "done":
            ends[event["id"]] = event["reason"], event["generated_tokens"] > 0
    assert stopping == 3
    assert ends == {"a": ("interrupted", True), "b": ("interrupted", False), "c": ("interrupted", False)}


def test_a_stop_during_a_long_prompt(engine: EngineProcess, slow: Path) -> None:
    engine.load(slow)
    engine.send(command="generate", tokens=[1] * 60_000)
    engine.send(command="stop")
    events = [engine.next(), engine.next()]
    done = next(event for event in events if event["event"] == "done")
    assert (done["reason"], done["generated_tokens"]) == ("interrupted", 0)
    # What was computed stays usable
    reused = engine.generate([1] * 600, max_tokens=1)[1]["reused_tokens"]
    assert reused in (0, 512, 599)


def test_too_many_waiting_requests_are_refused(engine: EngineProcess, slow: Path) -> None:
    engine.load(slow)
    engine.send(command="generate", tokens=[1])
    assert engine.next()["event"] == "token"
    for number in range(70):
        engine.send(command="stats", id=str(number))
    busy: list[str] = []
    while len(busy) < 6:
        event = engine.next()
        if event["event"] == "error":
            assert event["code"] == "busy"
            busy.append(event["id"])
    assert busy == [str(number) for number in range(64, 70)]
    engine.send(command="stop")


def test_a_line_that_never_ends_is_skipped(engine: EngineProcess) -> None:
    engine.send_bytes(b'{"command":"' + b"x" * (9 << 20) + b'"}\n{"command":"stats","id":"after"}\n')
    event = engine.next()
    assert (event["event"], event["code"]) == ("error", "line")
    assert engine.next()["id"] == "after"


def test_lines_may_end_in_any_way(engine: EngineProcess) -> None:
    engine.send_bytes(b'\n  \r\n{"command":"stats","id":"a"}\r\n{"command":"stats",')
    assert engine.next()["id"] == "a"
    engine.send_bytes(b'"id":"b"}')
    assert engine.end() == 0
    assert engine.next()["id"] == "b"


def test_requests_before_the_end_of_the_input_are_answered(package: Path) -> None:
    requests = [
        {"command": "load", "package": str(package)},
        {"command": "generate", "tokens": [1], "max_tokens": 2},
    ]
    text = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        engine_command(), input=text, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert events == ["ready", "loaded", "token", "token", "done"]


def test_quit_ends_a_running_answer(slow: Path) -> None:
    with EngineProcess() as engine:
        engine.load(slow)
        engine.send(command="generate", tokens=[1])
        engine.next()
        engine.send(command="quit")
        assert engine.process.wait(TIMEOUT) == 0


def test_it_ends_when_nobody_listens(slow: Path) -> None:
    """The other program is gone: no answer is computed for nobody."""
    process = subprocess.Popen(engine_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for request in ({"command": "load", "package": str(slow)}, {"command": "generate", "tokens": [1]}):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    while b'"token"' not in process.stdout.readline():
        pass
    process.stdout.close()
    assert process.wait(TIMEOUT) == 0
    process.stdin.close()


def test_unload_frees_the_model(engine: EngineProcess, package: Path) -> None:
    engine.load(package)
    assert engine.ask(command="unload", id="u") == {"event": "unloaded", "id": "u"}
    assert engine.ask(command="stats")["loaded"] is False
    assert engine.ask(command="generate", tokens=[1])["code"] == "not_loaded"
    engine.load(package)


def test_stats_say_what_is_used(engine: EngineProcess, package: Path) -> None:
    engine.load(package, threads=2, kv="float32")
    engine.generate(list(range(1, 31)), max_tokens=5)
    stats = engine.ask(command="stats")
    files = [path for path in package.iterdir() if path.name.endswith(".weight")]
    assert stats["weight_bytes"] == sum(path.stat().st_size for path in files)
    assert stats["cache_bytes"] >= 3 * 34 * 2 * 64 * 4
    assert stats["buffer_bytes"] > 0
    assert stats["anonymous_bytes"] != 0
    assert (stats["threads"], stats["cached_tokens"], stats["context"]) == (2, 34, 512)
    assert stats["prefill_tps"] > 0
    assert stats["decode_tps"] > 0


def test_memory_limits(engine: EngineProcess, slow: Path) -> None:
    """Too little is refused; a little more reads blocks from disk and gives the same tokens."""
    engine.load(slow)
    expected = engine.generate(range(1, 40), max_tokens=30)[0]
    event = engine.ask(command="load", package=str(slow), memory=1 << 20)
    assert (event["event"], event["code"]) == ("error", "memory")
    event = engine.ask(command="load", package=str(slow), memory=17 << 20)
    assert (event["event"], event["code"]) == ("error", "memory")
    blocks = sum(path.stat().st_size for path in slow.glob("block_*"))
    head = (slow / "head.mnn.weight").stat().st_size
    assert blocks > 9 << 20
    loaded = engine.load(slow, memory=(16 << 20) + head + (12 << 20))
    assert loaded["streamed_bytes"] > 0
    assert loaded["weight_bytes"] < blocks + head
    assert engine.generate(range(1, 40), max_tokens=30)[0] == expected


def test_a_context_has_its_room_under_a_limit(engine: EngineProcess, slow: Path) -> None:
    """With `context` exactly its cache and work are kept, as Python's planner has them; the rest is for
    weights."""
    with Package.open(slow) as package:
        sizes = block_sizes(package.manifest, range(SLOW.num_blocks)).values()
        head = head_file_bytes(package.manifest)
    beside = cache_bytes(SLOW, SLOW.num_blocks, "int8", 2000) + work_bytes(SLOW, 2, 2000, quantized=True)
    least = head + (16 << 20) + 4 * SLOW.vocab_size + beside + 2 * buffer_bytes(max(sizes))
    options: Event = {"package": str(slow), "threads": 2, "kv": "int8", "context": 2000}
    refused = engine.ask(command="load", **options, memory=least - 1)
    assert (refused["event"], refused["code"]) == ("error", "memory")
    assert engine.ask(command="load", **options, memory=least)["streamed_bytes"] == sum(sizes)
    assert engine.generate([5] * 1990, max_tokens=10)[1]["generated_tokens"] == 10


def test_a_cache_beyond_the_memory_limit_is_refused(engine: EngineProcess, slow: Path) -> None:
    blocks = sum(path.stat().st_size for path in slow.glob("block_*"))
    engine.load(slow, memory=(17 << 20) + 3 * blocks, kv="float32")
    event = engine.ask(command="generate", tokens=[1] * 30_000)
    assert (event["event"], event["code"]) == ("error", "memory")
    assert engine.generate([5, 6], max_tokens=3)[1]["generated_tokens"] == 3


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("id", "package", "threads", "tokens", "max_tokens", "temperature", "seed", "logit_bias", "isa")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["load", "generate", "stop", "stats", "unload"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=4),
)
def test_any_values_get_an_answer(engine: EngineProcess, command: str, values: dict[str, Any]) -> None:
    engine.send_bytes(json.dumps({"command": command, **values}).encode() + b"\n")
    engine.send(command="stats", id="mark")
    while engine.next().get("id") != "mark":
        pass


def test_arguments(tmp_path: Path) -> None:
    command = engine_command()
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"pocketglm-engine {pocketglm.__version__}, protocol 1\n"
    wrong = subprocess.run([*command, "--nonsense"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr[:6]) == (2, "usage:")


def test_a_signal_ends_it() -> None:
    process = subprocess.Popen(engine_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(TIMEOUT) != 0
    process.stdin.close()
    process.stdout.close()
