"""Calls in any order, several at once, and an engine that dies between them: each gets its answer, none fails
by the host's own fault, and in the end everything works as at the beginning."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import psutil
import pytest

from android.java_process import DesktopHost
from android.packages import id_of, write_phone_package

EXPECTED = {"busy", "cancelled", "missing", "exists", "engine", "not_running", "memory"}
"""Codes of errors that such calls may have. `internal` and `request` are not among them."""

TOKENS = [256, 258, *b"Hello", 257, 259]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two packages in folders of their own."""
    folder = tmp_path_factory.mktemp("packages")
    for seed in (1, 2):
        write_phone_package(folder / f"p{seed}", seed, padding=20_000)
    return folder


def some_call(generator: random.Random, ids: list[str]) -> tuple[str, dict[str, Any]]:
    generate = {"command": "generate", "id": "g", "tokens": TOKENS, "max_tokens": generator.choice([1, 200])}
    line = json.dumps(generator.choice([generate, {"command": "stop"}, {"command": "unload"}]))
    found = generator.choice(ids)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("engine.start", {"package": found, "kv": generator.choice(["int8", None]), "context": 300}),
        ("engine.start", {"package": found}),
        ("engine.send", {"line": line}),
        ("engine.send", {"line": line}),
        ("engine.stop", {}),
        ("engine.plan", {"package": found}),
        ("packages.import", {"kind": "folder"}),
        ("import.cancel", {}),
        ("packages.list", {}),
        ("packages.rename", {"package": found, "name": "n"}),
        ("packages.delete", {"package": found}),
    ]
    return generator.choice(calls)


def kill_engine(host: DesktopHost) -> None:
    for child in psutil.Process(host.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.mark.parametrize("seed", range(4))
def test_disorder(engine: list[str], host: DesktopHost, folder: Path, seed: int) -> None:
    generator = random.Random(seed)
    ids = [id_of(path) for path in sorted(folder.iterdir())]
    for _ in range(60):
        host.set(pick=str(folder / generator.choice(["p1", "p2"])))
        host.set(freeMemory=generator.choice([1 << 20, 4 << 30, 4 << 30]))
        calls = [some_call(generator, ids) for _ in range(generator.randint(1, 6))]
        waiting = {host.begin(method, **params) for method, params in calls}
        if generator.random() < 0.2:
            kill_engine(host)
        while waiting:
            answer = host.wait(lambda message: "id" in message)
            waiting.remove(answer["id"])
            assert "result" in answer or answer["error"]["code"] in EXPECTED, answer
        host.events.clear()
    assert_works(host, folder, ids)


def assert_works(host: DesktopHost, folder: Path, ids: list[str]) -> None:
    """Both packages can be there, and each answers."""
    host.set(freeMemory=4 << 30)
    host.call("engine.stop")
    for path, found in zip(sorted(folder.iterdir()), ids, strict=True):
        if not any(one["id"] == found and one["complete"] for one in host.call("packages.list")["packages"]):
            host.set(pick=str(path))
            host.call("packages.import", kind="folder")
        host.call("engine.start", package=found)
        host.call("engine.send", line=json.dumps({"command": "generate", "id": "last", "tokens": TOKENS}))
        host.event("engine.line", lambda data: '"id":"last"' in data["line"] and '"done"' in data["line"])
    assert len(psutil.Process(host.process.pid).children()) == 1
    assert {one["id"] for one in host.call("packages.list")["packages"]} == set(ids)
