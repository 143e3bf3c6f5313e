"""pocketglm-engine as a child process: sends requests, collects events."""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "engine" / "pocketglm-engine"
TIMEOUT = 120.0

Event = dict[str, Any]


def engine_command() -> list[str]:
    """What starts the engine: POCKETGLM_ENGINE (a sanitized build, an emulator and a program) or the
    built one. Skips the test where there is none."""
    if named := os.environ.get("POCKETGLM_ENGINE"):
        return shlex.split(named)
    if not BUILT.is_file():
        pytest.skip("pocketglm-engine is not built; `make engine` builds it")
    return [str(BUILT)]


def assert_same_tokens(found: Sequence[int], expected: Sequence[int]) -> None:
    """Equal. Another build (POCKETGLM_ENGINE) may round sums otherwise: near ties may part the two then."""
    if "POCKETGLM_ENGINE" in os.environ:
        found, expected = found[:10], expected[:10]
    assert list(found) == list(expected)


class EngineProcess:
    """A context manager. Events arrive in a thread of their own, so no pipe fills up."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self.process = subprocess.Popen(
            command or engine_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=False,
        )
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ready = self.next()
        assert self.ready["event"] == "ready"

    def send(self, **request: Any) -> None:
        self.send_bytes(json.dumps(request).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def next(self) -> Event:
        """The next event. Fails where the engine has died."""
        event = self._events.get(timeout=TIMEOUT)
        if event is None:
            assert self.process.stderr is not None
            raise AssertionError(f"the engine ended: {self.process.stderr.read().decode()[-3000:]}")
        return event

    def ask(self, **request: Any) -> Event:
        self.send(**request)
        return self.next()

    def load(self, package: Path, **options: Any) -> Event:
        event = self.ask(command="load", package=str(package), **options)
        assert event["event"] == "loaded", event
        return event

    def generate(self, tokens: Sequence[int], **settings: Any) -> tuple[list[int], Event]:
        """The answer's tokens, and the event at its end."""
        self.send(command="generate", tokens=list(tokens), **settings)
        found = []
        while (event := self.next())["event"] == "token":
            found.append(event["token"])
        return found, event

    def end(self) -> int:
        """Closes the input. Returns the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(TIMEOUT)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None and kind is not None:
            self.process.kill()
        code = self.end()
        self._reader.join(TIMEOUT)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        self.process.stdout.close()
        self.process.stderr.close()
        if kind is None:
            assert (code, errors) == (0, "")
