"""The shipped app on a desktop: its dex turned back into Java classes, over fake classes of Android.

Enters: the signed APK. Leaves: what the app tells its page, its pickers and the system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from android.apk import ENGINE, build_tool, command, extract
from android.java_process import TIMEOUT, JavaProcess, Message

FAKES = Path(__file__).parent / "phone"
ORIGIN = "https://app.pocketglm.invalid"


def classes_of_dex(apk: Path, folder: Path) -> Path:
    """classes.dex as a jar, by enjarify."""
    dex = extract(apk, "classes.dex", folder)
    jar = folder / "app.jar"
    tools = build_tool("tools")
    path = str(tools.debian_file(tools.ENJARIFY))
    translate = [sys.executable, "-O", "-m", "enjarify.main", str(dex), "-o", str(jar)]
    done = subprocess.run(translate, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 classes had errors" in done.stdout
    return jar


def compile_fakes(jar: Path, target: Path) -> None:
    """The fake phone. Classes out of dex have no generic types, hence no warnings about them."""
    javac = [command("javac"), "-Xlint:all,-unchecked", "-Werror", "-cp", str(jar), "-d", str(target)]
    sources = sorted(map(str, FAKES.rglob("*.java")))
    done = subprocess.run([*javac, *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def install(apk: Path, folder: Path) -> Path:
    """What Android unpacks of the APK. The engine is started by a script of its name, under emulation."""
    engine = extract(apk, ENGINE, folder / "unpacked")
    libraries = folder / "libraries"
    libraries.mkdir()
    program = libraries / Path(ENGINE).name
    program.write_text(f'#!/bin/sh\nexec {command("qemu-aarch64")} {engine} "$@"\n')
    program.chmod(0o755)
    return libraries


class Phone(JavaProcess):
    """The app in its window. What is passed over while something else is waited for is kept in `said`."""

    def __init__(self, classpath: str, files: Path, libraries: Path, assets: Path, *options: str) -> None:
        files.mkdir(exist_ok=True)
        super().__init__(
            Path(classpath), "phone.PhoneProgram", str(files), str(libraries), str(assets), *options
        )
        self.said: list[tuple[str, Any]] = []
        self._next_id = 1

    def do(self, what: str, **details: Any) -> None:
        self.send(json.dumps({"do": what, **details}))

    def wait(self, what: str, fits: Any = lambda value: True) -> Any:
        """The next thing of this kind, kept or to come."""
        return self.wait_for(lambda kind, value: kind == what and fits(value))[1]

    def wait_for(self, fits: Callable[[str, Any], bool]) -> tuple[str, Any]:
        """The next thing of any kind that fits, and its kind before it."""
        ends = time.monotonic() + TIMEOUT
        while True:
            for index, said in enumerate(self.said):
                if fits(*said):
                    return self.said.pop(index)
            self.said += self._read_next(ends - time.monotonic())

    def _read_next(self, timeout: float) -> list[tuple[str, Any]]:
        ((kind, value),) = self.next(max(0.1, timeout)).items()
        if kind != "script":
            return [(kind, value)]
        texts, end = json.JSONDecoder().raw_decode(value)
        assert value[end:].startswith(".forEach(function(text){try{window.pocketglmReceive(text)}")
        return [("text", json.loads(text)) for text in texts]

    def begin(self, method: str, **params: Any) -> int:
        call = {"id": self._next_id, "method": method, "params": params}
        self._next_id += 1
        self.do("send", text=json.dumps(call))
        return self._next_id - 1

    def answer(self, call: int) -> Message:
        answer = self.wait_for(lambda what, value: is_answer(call, what, value))[1]
        assert isinstance(answer, dict)
        return answer

    def call(self, method: str, **params: Any) -> Any:
        message = self.answer(self.begin(method, **params))
        assert "result" in message, message
        return message["result"]

    def event(self, name: str) -> Message:
        return dict(self.wait("text", lambda text: text.get("event") == name)["data"])

    def get(self, address: str, method: str = "GET") -> Message:
        self.do("get", method=method, address=address)
        found = self.wait("got")
        assert isinstance(found, dict)
        return found

    def open_picker(self, kind: str) -> int | None:
        """The id of an import whose picker has opened; None where another is in its way."""
        call = self.begin("packages.import", kind=kind)
        what, value = self.wait_for(lambda what, value: what == "picker" or is_answer(call, what, value))
        assert what == "picker" or value["error"]["code"] == "busy", value
        return call if what == "picker" else None

    def import_from(self, kind: str, path: Path | None) -> Message:
        """The answer to an import of what the user chooses; None: the user goes back."""
        call = self.begin("packages.import", kind=kind)
        self.wait("picker")
        self.do("choose", path=None if path is None else str(path))
        return self.answer(call)


def is_answer(call: int, what: str, value: Any) -> bool:
    return what == "text" and value.get("id") == call
