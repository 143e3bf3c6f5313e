"""Calls as the page may make them, right and wrong: what is refused, and that every call gets one answer."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from android.java_process import DesktopHost

ANYTHING: list[Any] = [None, True, 0, -1, 1.5, 2**53, "", "x", [], {}, ["a"], {"a": 1}]
METHODS: dict[str, dict[str, Any]] = {
    "device.info": {},
    "packages.list": {},
    "packages.import": {"kind": "zip"},
    "import.cancel": {},
    "packages.rename": {"package": "0" * 16, "name": "n"},
    "packages.delete": {"package": "0" * 16},
    "engine.plan": {"package": "0" * 16, "context": 5, "kv": "int8", "threads": 1, "memory": 1},
    "engine.start": {"package": "0" * 16, "context": 5, "kv": "int8", "threads": 1, "memory": 1},
    "engine.send": {"line": '{"command":"stats"}'},
    "engine.stop": {},
    "files.save": {"name": "n", "text": "t"},
    "clipboard.write": {"text": "t"},
}
"""Every method with parameters that it takes."""

OPTIONAL = {"context", "kv", "threads", "memory"}


def error_of(host: DesktopHost, line: str) -> tuple[Any, str]:
    """Id and code of the error that answers a line."""
    host.send(line)
    message = host.wait(lambda message: "id" in message)
    assert set(message["error"]) == {"code", "message", "details"}
    return message["id"], message["error"]["code"]


def test_device(host: DesktopHost) -> None:
    host.set(freeMemory=5, freeStorage=7, cores=9, bigCores=4, language="zh")
    assert host.call("device.info") == {
        "bridge": 1,
        "version": "0.1.0",
        "sdk": 34,
        "language": "zh",
        "memory": {"free": 5, "total": 8 << 30},
        "storage": {"free": 7},
        "cores": 9,
        "bigCores": 4,
    }


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "{",
        "[]",
        "1",
        "{}",
        '{"method":"device.info"}',
        '{"id":null,"method":"device.info"}',
        '{"id":"1","method":"device.info"}',
        '{"id":1.0,"method":"device.info"}',
        '{"id":-1,"method":"device.info"}',
        '{"id":9007199254740992,"method":"device.info"}',
        '{"id":1,"id":1,"method":"device.info"}',
        '{"id":1,"method":"device.info","params":{"a":' + "[" * 8 + "]" * 8 + "}}",
        '{"id":1,"method":"clipboard.write","params":{"text":"' + "x" * (9 << 20) + '"}}',
        '{"id":1,"method":"clipboard.write","params":{"text":"' + "你" * (3 << 20) + '"}}',
    ],
)
def test_texts_without_a_usable_id(host: DesktopHost, line: str) -> None:
    assert error_of(host, line) == (None, "request")


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"method": 1},
        {"method": "device.infos"},
        {"method": "x" * 1000},
        {"method": "device.info", "params": []},
        {"method": "device.info", "params": {"x": None}},
        {"method": "device.info", "more": 1},
        {"method": "packages.import", "params": {"kind": "file"}},
    ],
)
def test_calls_that_are_refused(host: DesktopHost, call: dict[str, Any]) -> None:
    assert error_of(host, json.dumps({"id": 2**53 - 1, **call})) == (2**53 - 1, "request")


def test_texts_of_almost_9_mib(host: DesktopHost) -> None:
    assert host.call("clipboard.write", text="x" * ((9 << 20) - 1000)) == {}


def test_params_left_out(host: DesktopHost) -> None:
    for line in ('{"id":0,"method":"packages.list"}', '{"id":0,"method":"packages.list","params":null}'):
        host.send(line)
        assert host.answer(0)["result"]["packages"] == []


@pytest.mark.parametrize("method", METHODS)
def test_parameters(host: DesktopHost, method: str) -> None:
    """Unknown, missing and mistyped ones."""
    params = METHODS[method]
    assert host.refused(method, **params, unknown=1)["code"] == "request"
    for name, right in params.items():
        others = {key: value for key, value in params.items() if key != name}
        if name not in OPTIONAL:
            assert host.refused(method, **others)["code"] == "request", name
            assert host.refused(method, **others, **{name: None})["code"] == "request", name
        for value in ANYTHING:
            if type(value) is type(right) or value is None:
                continue
            assert host.refused(method, **others, **{name: value})["code"] == "request", (name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context", 0),
        ("context", 2**24 + 1),
        ("threads", 0),
        ("threads", 1025),
        ("memory", 0),
        ("kv", "float32"),
    ],
)
def test_values_out_of_range(host: DesktopHost, name: str, value: Any) -> None:
    assert host.refused("engine.plan", package="0" * 16, **{name: value})["code"] == "request"


def test_damaged_calls(host: DesktopHost) -> None:
    """Whatever comes in, one answer goes out for each text, and the host goes on."""
    generator = random.Random(3)
    host.set(pick=None)
    words = [*ANYTHING, *METHODS, "\ud83d\ude00", "a" * 300, 2**63, -(2**63), 1e308]
    for _ in range(1200):
        method = generator.choice(list(METHODS))
        call: dict[str, Any] = {"id": 1, "method": method, "params": dict(METHODS[method])}
        for _ in range(generator.randint(0, 2)):
            inner = generator.choice([call, call["params"] if isinstance(call.get("params"), dict) else call])
            inner[generator.choice([*inner, "new"])] = generator.choice(words)
        line = json.dumps(call, ensure_ascii=generator.random() < 0.5)
        if generator.random() < 0.4:
            place = generator.randrange(len(line))
            line = line[:place] + generator.choice(['"', "}", ",", "\\", "0", ""]) + line[place + 1 :]
        host.send(line.encode("utf-8", "replace").decode())
        answer = host.wait(lambda message: "id" in message)
        assert ("result" in answer) != ("error" in answer)
        if "error" in answer:
            codes = ("request", "missing", "cancelled", "not_running")
            assert answer["error"]["code"] in codes, (line, answer)
    assert host.call("device.info")["bridge"] == 1
