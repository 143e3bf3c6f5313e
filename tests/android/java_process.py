"""The app's host in Java, without Android: compiled once, driven over lines of JSON.

Enters: calls of docs/android-bridge.md. Leaves: answers and events.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "android" / "core"
DESKTOP = Path(__file__).parent / "java"
TIMEOUT = 60.0

Message = dict[str, Any]


def compile_java(target: Path) -> Path:
    """The classes of the host and of the tests' programs. Skips the test where there is no compiler."""
    if shutil.which("javac") is None or shutil.which("java") is None:
        pytest.skip("no JDK (Debian: openjdk-17-jdk-headless)")
    target.mkdir()
    compile_folder(CORE, target, "-source", "8", "-target", "8")
    compile_folder(DESKTOP / "dev", target)
    return target


def compile_folder(folder: Path, target: Path, *options: str) -> None:
    sources = sorted(map(str, folder.rglob("*.java")))
    command = ["javac", "-Xlint:all,-options", "-Werror", *options]
    done = subprocess.run(
        [*command, "-cp", str(target), "-d", str(target), *sources], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


class JavaProcess:
    """A program that answers lines with lines; a context manager. Fails where it dies or writes errors."""

    def __init__(self, classes: Path, program: str, *arguments: str, shell: str | None = None) -> None:
        """`shell`: a script that starts the command it is given."""
        options = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx512m"]
        before = [] if shell is None else ["bash", "-c", shell]
        self.process = subprocess.Popen(
            [*before, "java", *options, "-cp", str(classes), program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def take(self, timeout: float | None = None) -> Message | None:
        """The next message; None at the program's end."""
        return self._messages.get(timeout=timeout)

    def next(self, timeout: float = TIMEOUT) -> Message:
        message = self.take(timeout)
        if message is None:
            assert self.process.stderr is not None
            raise AssertionError(f"the program ended: {self.process.stderr.read().decode()[-3000:]}")
        return message

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(TIMEOUT)

    def kill(self) -> None:
        """As the system ends processes, in place of leaving the context."""
        self.process.kill()
        self.process.wait(TIMEOUT)
        self._close()

    def _close(self) -> None:
        self._reader.join(TIMEOUT)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.process.kill()
        code = self.end()
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        self._close()
        if kind is None:
            assert (code, errors) == (0, "")


class Probe(JavaProcess):
    """Single classes of the host."""

    def __init__(self, classes: Path) -> None:
        super().__init__(classes, "dev.pocketglm.core.Probe")

    def ask(self, what: str, **question: Any) -> Message:
        self.send(json.dumps({"ask": what, **question}))
        return self.next()


class DesktopHost(JavaProcess):
    """The host over a folder. Events that are passed over while something else is waited for are kept in
    `events`."""

    def __init__(
        self, classes: Path, folder: Path, engine: Sequence[str] = ("false",), shell: str | None = None
    ) -> None:
        super().__init__(classes, "dev.pocketglm.desktop.DesktopHost", str(folder), *engine, shell=shell)
        self.folder = folder
        self.events: list[Message] = []
        self._next_id = 1

    def restart(self, folder: Path) -> None:
        """Ends the app and starts it over another folder, in the same process: faster than a new one."""
        self.send(json.dumps({"restart": str(folder)}))
        while self.next() != {"restarted": True}:
            pass  # what was said before
        self.folder = folder
        self.events.clear()

    def begin(self, method: str, **params: Any) -> int:
        """Calls without waiting. Returns the call's id."""
        call = {"id": self._next_id, "method": method, "params": params}
        self._next_id += 1
        self.send(json.dumps(call))
        return self._next_id - 1

    def answer(self, call: int) -> Message:
        """The answer to a call: with `result`, or with `error`."""
        return self.wait(lambda message: message.get("id", -1) == call)

    def call(self, method: str, **params: Any) -> Any:
        """The result. Fails where the call does."""
        message = self.answer(self.begin(method, **params))
        assert "result" in message, message
        return message["result"]

    def refused(self, method: str, **params: Any) -> Message:
        """The error of a call that must fail."""
        message = self.answer(self.begin(method, **params))
        assert "error" in message, message
        error = message["error"]
        assert isinstance(error, dict)
        return error

    def event(self, name: str, fits: Callable[[Message], bool] = lambda data: True) -> Message:
        """The data of the next event of this name, kept or to come."""
        for index, event in enumerate(self.events):
            if event["event"] == name and fits(event["data"]):
                return dict(self.events.pop(index)["data"])
        return dict(self.wait(lambda m: m.get("event") == name and fits(m["data"]))["data"])

    def wait(self, fits: Callable[[Message], bool]) -> Message:
        """The next message that fits; other events are kept."""
        ends = time.monotonic() + TIMEOUT
        while not fits(message := self.next(max(0.1, ends - time.monotonic()))):
            assert "event" in message, f"an answer that nobody waits for: {message}"
            self.events.append(message)
        return message

    def resource(self, path: str) -> Message:
        self.send(json.dumps({"resource": path}))
        return self.wait(lambda message: message.get("resource") == path)

    def set(self, **settings: Any) -> None:
        """What the phone is like from now on; see DesktopPlatform.java."""
        self.send(json.dumps({"desktop": settings}))
