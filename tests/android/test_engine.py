"""The engine behind the bridge: started, asked, stopped, dead and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from android.java_process import DesktopHost, Message
from android.packages import id_of, write_phone_package
from executable.engine_process import EngineProcess
from generate.tiny_models import PREFIXED, write_tiny

PROMPT = [256, 258, *b"Hello, phone", 257, 259]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phone_package(tmp_path_factory.mktemp("package") / "tiny", padding=1)


@pytest.fixture
def found(engine: list[str], host: DesktopHost, package: Path) -> str:
    """Id of the package, imported."""
    host.set(pick=str(package))
    return str(host.call("packages.import", kind="folder")["package"]["id"])


@pytest.fixture
def started(host: DesktopHost, found: str) -> str:
    host.call("engine.start", package=found, threads=1)
    return found


def request(host: DesktopHost, **fields: Any) -> None:
    assert host.call("engine.send", line=json.dumps(fields)) == {}


def next_line(host: DesktopHost) -> Message:
    """The engine's next event that answers no request of the host's."""
    while True:
        line: Message = json.loads(host.event("engine.line")["line"])
        if line["event"] != "ready" and not line.get("id", "").startswith("host-"):
            return line


def generate(host: DesktopHost, tokens: Sequence[int], **settings: Any) -> tuple[list[int], Message]:
    request(host, command="generate", id="g", tokens=list(tokens), **settings)
    found = []
    while (event := next_line(host))["event"] == "token":
        assert event["id"] == "g"
        found.append(event["token"])
    return found, event


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The engine's process."""
    (child,) = psutil.Process(process.pid).children()
    return int(child.pid)


def test_a_conversation(host: DesktopHost, found: str, package: Path) -> None:
    answer = host.call("engine.start", package=found, threads=2, kv="int8", context=600)
    plan, loaded = answer["plan"], answer["loaded"]
    assert (plan["fits"], plan["context"], plan["kv"], plan["threads"]) == (True, 600, "int8", 2)
    assert (loaded["event"], loaded["context"], loaded["kv"], loaded["threads"]) == ("loaded", 600, "int8", 2)
    assert host.call("packages.list")["running"] == found
    with EngineProcess() as direct:
        direct.load(package, threads=2, kv="int8", context=600)
        turns, reused = list(PROMPT), 0
        for turn in range(3):
            expected, end = direct.generate(turns, max_tokens=20, temperature=0.9, seed=turn)
            tokens, done = generate(host, turns, max_tokens=20, temperature=0.9, seed=turn)
            assert tokens == expected
            assert done["reused_tokens"] == end["reused_tokens"] >= reused
            reused = len(turns)
            turns += [*tokens, 257, *b"and then?", 259]
    request(host, command="stats", id="s")
    assert next_line(host)["cached_tokens"] > reused
    assert host.call("engine.stop") == {"running": True}
    assert host.event("engine.exit") == {"code": 0, "expected": True}
    assert host.call("packages.list")["running"] is None


def test_a_bidirectional_model(engine: list[str], host: DesktopHost, tmp_path: Path) -> None:
    package = write_tiny(tmp_path / "p", PREFIXED)
    host.set(pick=str(package))
    host.call("packages.import", kind="folder")
    host.call("engine.start", package=id_of(package))
    prompt = [*b"question", 261, 262]
    with EngineProcess() as direct:
        direct.load(package, threads=2)
        assert generate(host, prompt, max_tokens=12)[0] == direct.generate(prompt, max_tokens=12)[0]


def test_another_package_takes_the_place(host: DesktopHost, started: str, tmp_path: Path) -> None:
    other = write_phone_package(tmp_path / "other", seed=5, padding=1)
    host.set(pick=str(other))
    host.call("packages.import", kind="folder")
    request(host, command="generate", id="long", tokens=PROMPT)
    assert next_line(host)["event"] == "token"
    host.call("engine.start", package=id_of(other))
    assert host.call("packages.list")["running"] == id_of(other)
    ends = [json.loads(e["data"]["line"]) for e in host.events if '"done"' in e["data"].get("line", "")]
    assert [(end["id"], end["reason"]) for end in ends] == [("long", "interrupted")]


def test_stop_an_answer(host: DesktopHost, started: str) -> None:
    request(host, command="generate", id="a", tokens=PROMPT)
    assert next_line(host)["event"] == "token"
    request(host, command="stop", id="a")
    while (event := next_line(host))["event"] != "done":
        assert event["event"] in ("token", "stopping")
    assert event["reason"] == "interrupted"


def test_line_feeds_between_values(host: DesktopHost, started: str) -> None:
    host.call("engine.send", line='\n{"command"\r\n:\n"stats",\n"id":"s"}\n')
    assert next_line(host)["id"] == "s"


def test_crash_and_restart(host: DesktopHost, started: str) -> None:
    expected = generate(host, PROMPT, max_tokens=30)[0]
    request(host, command="generate", id="a", tokens=PROMPT)
    assert next_line(host)["event"] == "token"
    os.kill(child_of(host.process), signal.SIGKILL)
    assert host.event("engine.exit") == {"code": 137, "signal": 9, "expected": False}
    assert host.call("packages.list")["running"] is None
    assert host.refused("engine.send", line='{"command":"stats"}')["code"] == "not_running"
    assert host.call("engine.stop") == {"running": False}
    host.events.clear()
    host.call("engine.start", package=started, threads=1)
    assert generate(host, PROMPT, max_tokens=30)[0] == expected


def test_stop_and_start_at_once(host: DesktopHost, started: str) -> None:
    for _ in range(3):
        request(host, command="generate", id="a", tokens=PROMPT)
        assert host.call("engine.stop") == {"running": True}
        assert host.call("engine.stop") == {"running": False}
        host.call("engine.start", package=started)
        assert host.event("engine.exit")["expected"]
        child_of(host.process)  # one alone


def test_an_engine_that_does_not_end_is_killed(host: DesktopHost, started: str) -> None:
    pid = child_of(host.process)
    os.kill(pid, signal.SIGSTOP)
    host.call("engine.stop")
    time.sleep(2)  # longer than it is asked politely
    os.kill(pid, signal.SIGCONT)  # a stopped process takes signals when it goes on
    assert host.event("engine.exit") == {"code": 143, "signal": 15, "expected": True}


def test_unload(host: DesktopHost, started: str) -> None:
    request(host, command="unload")
    assert next_line(host)["event"] == "unloaded"
    assert host.call("packages.list")["running"] is None
    assert host.refused("engine.send", line='{"command":"stats"}')["code"] == "not_running"
    host.call("packages.delete", package=started)


def test_a_package_in_the_engine_stays(host: DesktopHost, started: str) -> None:
    assert host.refused("packages.delete", package=started)["code"] == "busy"
    assert host.call("packages.rename", package=started, name="new")["package"]["name"] == "new"
    assert generate(host, PROMPT, max_tokens=2)[1]["event"] == "done"


def test_the_engine_refuses_the_package(host: DesktopHost, found: str) -> None:
    file = host.folder / "packages" / found / "head.mnn.weight"
    file.write_bytes(file.read_bytes()[:-1])
    error = host.refused("engine.start", package=found)
    assert error["code"] == "engine"
    assert error["details"]["engineCode"] == "package"
    assert "head.mnn.weight" in error["message"]
    assert host.call("packages.list")["running"] is None
    assert host.refused("engine.send", line='{"command":"stats"}')["code"] == "not_running"


def test_requests_that_are_refused(host: DesktopHost, started: str) -> None:
    for line in (
        "",
        "{",
        "[]",
        '"stats"',
        "{}",
        '{"command":"quit"}',
        '{"command":"load","package":"/"}',
        '{"command":1}',
        '{"command":"stats"}\n{"command":"quit"}',
        '{"command":"stats","command":"quit"}',
        json.dumps({"command": "stats", "id": "x" * (8 << 20)}),
    ):
        assert host.refused("engine.send", line=line)["code"] == "request", line[:80]
    request(host, command="generate", tokens=[])  # the engine's own business
    assert next_line(host)["code"] == "request"


def test_memory(host: DesktopHost, found: str) -> None:
    host.set(freeMemory=1 << 20)
    plan = host.call("engine.plan", package=found)
    assert (plan["fits"], plan["reason"], plan["free"]) == (False, "memory", 0)
    error = host.refused("engine.start", package=found)
    assert (error["code"], error["details"]["free"]) == ("memory", 0)
    assert error["details"]["needed"] > plan["anonymous"] / 2
    host.set(freeMemory=4 << 30)
    assert host.call("engine.start", package=found)["plan"]["fits"]


@pytest.mark.parametrize(
    ("level", "severe"), [(5, False), (10, False), (15, True), (40, False), (60, True), (80, True)]
)
def test_low_memory(host: DesktopHost, level: int, severe: bool) -> None:
    host.set(trim=20)  # the app is not seen any more: no event
    host.set(trim=level)
    assert host.event("memory.low") == {"level": level, "severe": severe}
    assert host.events == []


def test_no_engine(classes: Path, tmp_path: Path, package: Path) -> None:
    for command, problem in (
        (["/nowhere/engine"], "cannot be started"),
        (["sh", "-c", "echo cannot run >&2; exit 3"], "cannot run"),
        (["echo", '{"event":"ready","protocol":2}'], "another version"),
    ):
        with DesktopHost(classes, tmp_path / "files", command) as host:
            host.set(pick=str(package))
            if host.call("packages.list")["packages"] == []:
                host.call("packages.import", kind="folder")
            error = host.refused("engine.start", package=id_of(package))
            assert error["code"] == "engine"
            assert problem in error["message"]


STRANGE = """
import sys
sys.stderr.write("complaint " * 200_000)
print('{"event":"ready","protocol":1}', flush=True)
for line in sys.stdin:
    print("x" * (2 << 20))
    print("not JSON")
    print('["no object"]')
    print('{"event":"token","id":"' + "y" * 1000 + '"}')
    print('{"event":"loaded","id":"host-1"}', flush=True)
    if "generate" in line:
        sys.exit(200)
"""
"""An engine that fills its pipes and says what no engine says."""


def test_a_strange_engine(classes: Path, tmp_path: Path, package: Path) -> None:
    with DesktopHost(classes, tmp_path / "files", [sys.executable, "-c", STRANGE]) as host:
        host.set(pick=str(package))
        host.call("packages.import", kind="folder")
        host.call("engine.start", package=id_of(package))
        lines = [event["data"]["line"] for event in host.events if event["event"] == "engine.line"]
        assert [line[:9] for line in lines] == [
            '{"event":',
            "not JSON",
            '["no obje',
            '{"event":',
            '{"event":',
        ]
        request(host, command="generate", tokens=[1])
        assert host.event("engine.exit") == {"code": 200, "signal": 72, "expected": False}


def test_an_engine_that_does_not_read(host: DesktopHost, started: str) -> None:
    """What waits for it is bounded."""
    pid = child_of(host.process)
    os.kill(pid, signal.SIGSTOP)
    try:
        line, sent = json.dumps({"command": "stats", "id": "x" * (7 << 20)}), 0
        while "result" in (answer := host.answer(host.begin("engine.send", line=line))):
            sent += 1
        assert answer["error"]["code"] == "busy"
        assert 4 <= sent <= 6  # the first of them is on its way
    finally:
        os.kill(pid, signal.SIGKILL)
    assert host.event("engine.exit")["signal"] == 9


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_the_phones_own_engine(
    phone_engine: Path, engine: list[str], classes: Path, tmp_path: Path, package: Path, cpu: str
) -> None:
    """The program out of the APK, emulated: the whole way of a conversation, with a crash in it."""
    command = ["qemu-aarch64", "-cpu", cpu, str(phone_engine)]
    with DesktopHost(classes, tmp_path / "files", command) as host, EngineProcess() as direct:
        host.set(pick=str(package))
        host.call("packages.import", kind="folder")
        direct.load(package, threads=2)
        expected = direct.generate(PROMPT, max_tokens=12)[0]
        host.call("engine.start", package=id_of(package))
        assert generate(host, PROMPT, max_tokens=12)[0] == expected
        os.kill(child_of(host.process), signal.SIGKILL)
        assert host.event("engine.exit") == {"code": 137, "signal": 9, "expected": False}
        host.call("engine.start", package=id_of(package))
        assert generate(host, PROMPT, max_tokens=12)[0] == expected
        assert host.call("engine.stop") == {"running": True}
        assert host.event("engine.exit")["expected"]


def test_the_engine_ends_with_the_app(
    engine: list[str], classes: Path, tmp_path: Path, package: Path
) -> None:
    host = DesktopHost(classes, tmp_path / "files", engine)
    host.set(pick=str(package))
    host.call("packages.import", kind="folder")
    host.call("engine.start", package=id_of(package))
    request(host, command="generate", id="a", tokens=PROMPT)
    pid = child_of(host.process)
    with Path(f"/proc/{pid}/status").open() as status:
        assert "pocketglm" in status.readline() or "POCKETGLM_ENGINE" in os.environ
    host.kill()
    for _ in range(600):
        if not running(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the engine runs on without the app")


def running(pid: int) -> bool:
    """Whether the process is there and not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
