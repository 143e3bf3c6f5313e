"""The shipped app, Activity and all, out of its dex, with the shipped engine under emulation."""

from __future__ import annotations

import base64
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from android.apk import BUILD_TIMEOUT, ENGINE, command
from android.packages import id_of, write_archive, write_phone_package
from android.phone_process import ORIGIN, Phone, classes_of_dex, compile_fakes, install
from executable.engine_process import EngineProcess

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)

PROMPT = [256, 258, *b"Hello, phone", 257, 259]
SHARED_PICKER = {
    "action": "android.intent.action.OPEN_DOCUMENT",
    "category": "android.intent.category.OPENABLE",
}


@pytest.fixture(scope="module")
def classpath(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The app's classes out of the dex, and fake Android."""
    command("javac")
    folder = tmp_path_factory.mktemp("phone")
    jar = classes_of_dex(apk, folder)
    compile_fakes(jar, folder / "fakes")
    return f"{jar}:{folder / 'fakes'}"


@pytest.fixture(scope="module")
def libraries(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    command("qemu-aarch64")
    return install(apk, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def assets(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    with zipfile.ZipFile(apk) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("assets/")])
    return folder / "assets"


@pytest.fixture
def phone(classpath: str, libraries: Path, assets: Path, tmp_path: Path) -> Iterator[Phone]:
    with Phone(classpath, tmp_path / "files", libraries, assets) as phone:
        assert phone.wait("loaded") == f"{ORIGIN}/"
        yield phone


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phone_package(tmp_path_factory.mktemp("package") / "tiny", padding=50_000)


def engine_events(phone: Phone) -> Iterator[dict[str, Any]]:
    while True:
        yield json.loads(phone.event("engine.line")["line"])


def generate(phone: Phone, **settings: Any) -> None:
    request = {"command": "generate", "id": "g", "tokens": PROMPT, **settings}
    assert phone.call("engine.send", line=json.dumps(request)) == {}


def rest_of_answer(phone: Phone) -> tuple[list[int], dict[str, Any]]:
    found = []
    for event in engine_events(phone):
        if event["event"] == "token":
            found.append(event["token"])
        elif event.get("id") == "g":
            return found, event
    raise AssertionError


def engine_processes(libraries: Path) -> list[psutil.Process]:
    program = str(libraries.parent / "unpacked" / ENGINE)
    return [
        process for process in psutil.process_iter(["cmdline"]) if program in (process.info["cmdline"] or [])
    ]


def test_what_the_phone_is(phone: Phone) -> None:
    info = phone.call("device.info")
    assert (info["bridge"], info["version"], info["sdk"]) == (1, "1.2.3", 34)
    assert info["memory"] == {"free": 3 << 30, "total": 8 << 30}
    assert info["storage"]["free"] > 0
    assert 1 <= info["bigCores"] <= info["cores"]


def test_the_page_can_do_nothing_else(phone: Phone) -> None:
    """No files, no other apps' contents, no windows, no place."""
    assert phone.wait("settings") == {
        "cacheMode": 2,  # nothing is kept beside the app
        "contentAccess": False,
        "domStorage": True,
        "fileAccess": False,
        "geolocation": False,
        "javaScript": True,
        "multipleWindows": False,
    }


def test_a_conversation_with_an_imported_archive(phone: Phone, package: Path) -> None:
    """Import, plan, start, an answer: the tokens are those of the engine alone, here."""
    phone.wait("settings")
    archive = write_archive(package)
    call = phone.begin("packages.import", kind="zip")
    assert phone.wait("picker") == {**SHARED_PICKER, "type": "*/*"}
    phone.do("choose", path=str(archive))
    found = phone.answer(call)["result"]["package"]
    assert (found["id"], found["complete"], found["name"]) == (id_of(package), True, "tiny")
    assert phone.call("engine.plan", package=found["id"])["fits"] is True
    started = phone.call("engine.start", package=found["id"], threads=1, kv="float16")
    assert started["loaded"]["isa"] == "neon_i8mm"
    generate(phone, max_tokens=12)
    tokens, done = rest_of_answer(phone)
    with EngineProcess() as here:
        here.load(package, kv="float16", threads=1)
        assert tokens == here.generate(PROMPT, max_tokens=12)[0]
    assert done["reason"] == "length"
    assert phone.call("packages.list")["running"] == found["id"]


def test_a_folder_is_imported(phone: Phone, package: Path) -> None:
    call = phone.begin("packages.import", kind="folder")
    assert phone.wait("picker") == {"action": "android.intent.action.OPEN_DOCUMENT_TREE"}
    phone.do("choose", path=str(package))
    assert phone.answer(call)["result"]["package"]["id"] == id_of(package)


def test_an_answer_goes_on_while_the_window_is_made_anew(
    phone: Phone, package: Path, libraries: Path
) -> None:
    found = phone.import_from("folder", package)["result"]["package"]["id"]
    phone.call("engine.start", package=found, threads=1)
    (process,) = engine_processes(libraries)
    generate(phone, max_tokens=100)
    next(event for event in engine_events(phone) if event["event"] == "token")
    phone.do("turn")
    assert phone.wait("loaded") == f"{ORIGIN}/"
    assert rest_of_answer(phone)[1]["reason"] == "length"
    assert engine_processes(libraries) == [process]
    phone.do("screen")
    assert phone.wait("screenOn") is True


def test_a_dead_page_is_opened_again(phone: Phone, package: Path) -> None:
    """The process that draws is ended by the system when memory is short: the app and the engine stay."""
    found = phone.import_from("folder", package)["result"]["package"]["id"]
    phone.call("engine.start", package=found, threads=1)
    phone.do("kill page")
    assert phone.wait("loaded") == f"{ORIGIN}/"
    assert phone.wait("survived") is True
    assert phone.call("packages.list")["running"] == found


def test_a_dead_engine_is_started_again(phone: Phone, package: Path, libraries: Path) -> None:
    found = phone.import_from("folder", package)["result"]["package"]["id"]
    phone.call("engine.start", package=found, threads=1)
    generate(phone, max_tokens=400)
    (process,) = engine_processes(libraries)
    os.kill(process.pid, signal.SIGKILL)
    ended = phone.event("engine.exit")
    assert (ended["signal"], ended["expected"]) == (9, False)
    phone.call("engine.start", package=found, threads=1)
    phone.said.clear()
    generate(phone, max_tokens=3)
    assert len(rest_of_answer(phone)[0]) == 3


def test_closing_the_window_leaves_the_engine(phone: Phone, package: Path) -> None:
    found = phone.import_from("folder", package)["result"]["package"]["id"]
    phone.call("engine.start", package=found, threads=1)
    phone.do("close")
    phone.do("open")
    phone.wait("loaded")
    assert phone.call("packages.list")["running"] == found


def test_pickers_that_give_nothing(phone: Phone, tmp_path: Path) -> None:
    assert phone.import_from("zip", None)["error"]["code"] == "cancelled"
    assert phone.import_from("folder", None)["error"]["code"] == "cancelled"
    for name in ("bad.zip", "no.zip"):
        (tmp_path / name).write_bytes(b"")
        assert phone.import_from("zip", tmp_path / name)["error"]["code"] == "source", name
    for name in ("bad", "no"):
        (tmp_path / name).mkdir()
        assert phone.import_from("folder", tmp_path / name)["error"]["code"] == "source", name
    # A window that goes for good takes its picker with it: the next import is not in its way
    phone.begin("packages.import", kind="zip")
    phone.wait("picker")
    phone.do("close")
    phone.do("open")
    assert phone.import_from("zip", None)["error"]["code"] == "cancelled"
    phone.do("alone")
    call = phone.begin("packages.import", kind="zip")
    assert phone.answer(call)["error"]["code"] in ("source", "internal")


def test_a_picker_that_outlives_its_page(phone: Phone, package: Path) -> None:
    """Nobody waits for its answer any more, nor does the next import."""
    phone.begin("packages.import", kind="folder")
    phone.wait("picker")
    phone.do("turn")
    phone.do("choose", path=str(package))
    while (call := phone.open_picker("folder")) is None:
        pass  # what was chosen before is on its way through another thread
    assert phone.call("packages.list")["packages"] == []
    phone.do("choose", path=str(package))
    assert phone.answer(call)["result"]["package"]["id"] == id_of(package)


def test_saving_and_copying(phone: Phone, tmp_path: Path) -> None:
    call = phone.begin("files.save", name="chats.json", text='{"a": "你好"}')
    wanted = {"action": "android.intent.action.CREATE_DOCUMENT", "type": "application/json"}
    picker = phone.wait("picker")
    assert {**picker, **wanted} == picker
    assert picker["android.intent.extra.TITLE"] == "chats.json"
    phone.do("choose", path=str(tmp_path / "chats.json"))
    assert phone.answer(call)["result"] == {"saved": True}
    assert (tmp_path / "chats.json").read_text("utf-8") == '{"a": "你好"}'
    call = phone.begin("files.save", name="a.txt", text="")
    phone.wait("picker")
    phone.do("choose", path=None)
    assert phone.answer(call)["result"] == {"saved": False}
    call = phone.begin("files.save", name="a.txt", text="")
    phone.wait("picker")
    phone.do("choose", path=str(tmp_path / "no.txt"))
    assert phone.answer(call)["error"]["code"] == "internal"
    assert phone.call("clipboard.write", text="a\u2028b 😀") == {}
    assert phone.wait("clipboard") == "a\u2028b 😀"
    assert phone.answer(phone.begin("clipboard.write", text="x" * 1_000_001))["error"]["code"] == "internal"


def test_files_for_the_page_itself(phone: Phone, tmp_path: Path) -> None:
    """An <input type=file>, as conversations are read back with."""
    for chosen in (tmp_path / "chats.json", None):
        phone.do("choose file")
        phone.wait("picker")
        phone.do("choose", path=str(chosen) if chosen else None)
        assert phone.wait("files") == (f"content://one/{chosen}" if chosen else None)


def test_addresses(phone: Phone, package: Path, assets: Path) -> None:
    """The app's files and those of packages; all else is refused, and every answer carries the policy."""
    found = phone.import_from("folder", package)["result"]["package"]["id"]
    page = phone.get(f"{ORIGIN}/")
    assert (page["status"], page["type"]) == (200, "text/html")
    assert base64.b64decode(page["body"]) == (assets / "page" / "index.html").read_bytes()
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for path in (path for path in (assets / "page").rglob("*") if path.is_file()):
        got = phone.get(f"{ORIGIN}/{path.relative_to(assets / 'page').as_posix()}")
        assert (got["status"], got["type"]) == (200, types[path.suffix])
        assert base64.b64decode(got["body"]) == path.read_bytes()
        assert got["headers"]["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert got["headers"]["X-Content-Type-Options"] == "nosniff"
    manifest = phone.get(f"{ORIGIN}/packages/{found}/manifest.json")
    assert base64.b64decode(manifest["body"]) == (package / "manifest.json").read_bytes()


REFUSED = [
    "https://example.com/",
    "http://app.pocketglm.invalid/",
    "https://app.pocketglm.invalid.example.com/",
    "https://app.pocketglm.invalid:8443/",
    "https://app.pocketglm.invalid@example.com/",
    f"{ORIGIN}/../classes.dex",
    f"{ORIGIN}/%2e%2e/classes.dex",
    f"{ORIGIN}/assets/../index.html",
    f"{ORIGIN}//index.html",
    f"{ORIGIN}/index.html?x=1",
    f"{ORIGIN}/nothing.js",
    f"{ORIGIN}/assets",
    f"{ORIGIN}/packages/0123456789abcdef/block_00.mnn.weight",
    "file:///etc/passwd",
    "content://one//etc/passwd",
    "",
]


def test_every_other_address_is_refused(phone: Phone) -> None:
    for address in REFUSED:
        got = phone.get(address)
        assert (got["status"], got["body"]) == (403, ""), address
        assert "Content-Security-Policy" in got["headers"]
    assert phone.get(f"{ORIGIN}/", method="POST")["status"] == 403
    assert phone.get(f"{ORIGIN}/packages/0123456789abcdef/manifest.json")["status"] == 404


def test_links(phone: Phone) -> None:
    """Opened elsewhere where the user tapped them; the page itself never leaves its address."""
    phone.do("tap", address="https://example.com/a?b=c", gesture=True)
    opened = phone.wait("opened")
    assert opened == {
        "action": "android.intent.action.VIEW",
        "data": "https://example.com/a?b=c",
        "category": "android.intent.category.BROWSABLE",
    }
    assert phone.wait("stays") is True
    harmful = [
        "intent://x#Intent;end",
        "file:///etc/hosts",
        "javascript:alert(1)",
        "content://one/x",
        "tel:1",
    ]
    for address, gesture in [("https://example.com/", False), *((address, True) for address in harmful)]:
        phone.do("tap", address=address, gesture=gesture)
        assert phone.wait("stays") is True
        assert not [kind for kind, _ in phone.said if kind == "opened"]
    phone.do("tap", address=f"{ORIGIN}/", gesture=False)
    assert phone.wait("stays") is False
    phone.do("alone")
    phone.do("tap", address="https://example.com/", gesture=True)
    assert phone.wait("stays") is True


def test_back_and_little_memory(phone: Phone) -> None:
    phone.do("back", hasHistory=False)
    assert phone.wait("toBack") is True
    phone.do("back", hasHistory=True)
    assert phone.wait("wentBack") is True
    phone.do("trim", level=15)
    assert phone.event("memory.low") == {"level": 15, "severe": True}
    phone.do("low memory")
    assert phone.event("memory.low") == {"level": 80, "severe": True}


def test_without_a_webview(classpath: str, libraries: Path, assets: Path, tmp_path: Path) -> None:
    with Phone(classpath, tmp_path / "files", libraries, assets, "no WebView") as phone:
        assert phone.wait("text") is True
        phone.do("close")
