"""The page over the app's Java host and the real engine: from an archive to a conversation, and back.

Natively, and out of the APK: its page, and its engine for arm64 under emulation.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from android.apk import ENGINE, build_apk, command
from android.java_process import compile_java
from executable.engine_process import engine_command
from web.driving import ask, send, wait_done
from web.phone.desktop_host import DesktopPageHost
from web.phone.page_host import BRIDGE, PAGE, need_page
from web.phone.test_phone_page import PHONE, TURNED, models

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from web.conftest import OpenPage

COMMAND = [sys.executable, "-m", "pocketglm"]
NAME = "smollm2-int4"
QUESTION = "What is the capital of France?"
EMULATED_S = 280.0

MakeHost = Callable[..., DesktopPageHost]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_java(tmp_path_factory.mktemp("java") / "classes")


@pytest.fixture(scope="module")
def archive(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 as a person would bring it to the phone."""
    package = tmp_path_factory.mktemp("model") / NAME
    target = package.with_suffix(".zip")
    for arguments in (
        ["convert", smollm2, "-o", package, "--bits", "4"],
        ["export", package, "--format", "zip", "-o", target],
    ):
        subprocess.run([*COMMAND, *arguments], check=True, capture_output=True)
    return target


@pytest.fixture
def make_host(classes: Path, tmp_path: Path) -> Iterator[MakeHost]:
    need_page()
    made: list[DesktopPageHost] = []

    def make(engine: list[str] | None = None, page: Path = PAGE) -> DesktopPageHost:
        made.append(DesktopPageHost(classes, tmp_path / "files", engine or engine_command(), page))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture(scope="module")
def apk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app's files, unpacked."""
    folder = tmp_path_factory.mktemp("apk")
    with zipfile.ZipFile(build_apk(folder / "pocketglm.apk")) as opened:
        opened.extractall(folder)
    folder.joinpath(ENGINE).chmod(0o755)
    return folder


def with_model(open_page: OpenPage, host: DesktopPageHost, archive: Path) -> Page:
    """The page after its first model was imported and loaded; answers are greedy and short."""
    host.set(pick=str(archive))
    page = open_page(host.address, init_script=BRIDGE, **PHONE)
    page.get_by_role("button", name="Add from a .zip file").click()
    page.get_by_text(f"“{NAME}” was added").first.wait_for(timeout=60_000)
    page.get_by_label("Context used").wait_for(timeout=60_000)
    longest_answer(page, 24)
    return page


def longest_answer(page: Page, tokens: int) -> None:
    page.get_by_label("Settings", exact=True).click()
    page.get_by_role("button", name="Precise").click()
    page.get_by_label("Longest answer, tokens").fill(str(tokens))
    page.get_by_role("button", name="Done").click()


@pytest.fixture
def host(make_host: MakeHost) -> DesktopPageHost:
    return make_host()


@pytest.fixture
def page(open_page: OpenPage, host: DesktopPageHost, archive: Path) -> Page:
    return with_model(open_page, host, archive)


def times_of(host: DesktopPageHost, archive: Path) -> dict[str, int]:
    """When the files were written that are in the app's folder as a whole."""
    with zipfile.ZipFile(archive) as opened:
        sizes = {Path(entry.filename).name: entry.file_size for entry in opened.infolist()}
    found = {path.name: path.stat() for path in host.app.folder.rglob("*") if path.is_file()}
    return {name: stat.st_mtime_ns for name, stat in found.items() if stat.st_size == sizes.get(name)}


def text_of(page: Page) -> str:
    return page.locator(".answer .markdown").last.inner_text()


def test_a_whole_conversation(page: Page, host: DesktopPageHost) -> None:
    first = ask(page, QUESTION)
    assert "Paris" in first.inner_text()
    second = ask(page, "And which river flows through it?")
    found = re.search(r"(\d+) of \d+ prompt tokens reused", second.locator(".figures").inner_text())
    assert found
    assert int(found[1]) > 30  # the conversation is in the engine's cache
    answer = text_of(page)
    page.get_by_label("Regenerate").click()
    wait_done(page)
    assert text_of(page) == answer  # greedy: the same again
    page.reload()
    page.locator(".answer").nth(1).wait_for()
    assert text_of(page) == answer
    assert "Paris" in ask(page, QUESTION).inner_text()


def test_stop_and_turn(page: Page, host: DesktopPageHost) -> None:
    longest_answer(page, 1900)
    send(page, "Write a very long story about a boat.")
    page.wait_for_function("() => document.querySelector('.answer .markdown')?.textContent.length > 40")
    page.set_viewport_size(TURNED)
    page.wait_for_function("() => document.querySelector('.answer .markdown')?.textContent.length > 80")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Stopped", exact=True).wait_for()
    longest_answer(page, 24)
    assert ask(page, QUESTION).locator(".ending.failed").count() == 0


def test_the_engine_is_killed_and_comes_back(page: Page, host: DesktopPageHost) -> None:
    ask(page, QUESTION)
    answer = text_of(page)
    longest_answer(page, 1900)
    send(page, "Write a very long story about a boat.")
    page.wait_for_function("() => document.querySelectorAll('.answer .markdown')[1]?.textContent.length > 40")
    host.engine().kill()
    page.locator(".ending.failed").get_by_text("The engine ended. It is being started again.").wait_for()
    page.get_by_text("The engine ended unexpectedly and was started again.").first.wait_for()
    assert page.locator(".answer .markdown").first.inner_text() == answer
    longest_answer(page, 24)
    page.get_by_label("Try again").click()
    wait_done(page)
    assert page.locator(".ending.failed").count() == 0
    assert len(text_of(page)) > 20


def test_the_app_is_started_again(
    page: Page, host: DesktopPageHost, make_host: MakeHost, open_page: OpenPage
) -> None:
    """Another process over the same files, as after the system has ended the app."""
    host.close()
    again = make_host()
    dialog = models(open_page(again.address, init_script=BRIDGE, **PHONE))
    dialog.get_by_role("heading", name=NAME).wait_for()
    dialog.get_by_role("button", name=f"Use: {NAME}").click()
    dialog.get_by_text("In use").wait_for()


def test_an_import_is_interrupted_and_continued(
    host: DesktopPageHost, open_page: OpenPage, archive: Path
) -> None:
    host.set(pick=str(archive), bytesPerSecond=20_000_000)
    page = open_page(host.address, init_script=BRIDGE, **PHONE)
    page.get_by_role("button", name="Add from a .zip file").click()
    page.wait_for_function("() => document.querySelector('.import-progress progress')?.value > 12e6")
    page.get_by_role("button", name="Cancel").click()
    dialog = models(page)
    dialog.get_by_text("Interrupted:").wait_for()
    host.set(bytesPerSecond=0)
    complete = times_of(host, archive)
    assert complete
    dialog.get_by_role("button", name="Add from a .zip file").click()
    dialog.get_by_text("In use").wait_for(timeout=60_000)
    assert times_of(host, archive).items() >= complete.items()  # they were not copied again


def test_what_does_not_fit_is_said_with_numbers(page: Page, host: DesktopPageHost) -> None:
    dialog = models(page)
    dialog.get_by_role("button", name="Stop", exact=True).click()
    host.set(freeMemory=800 << 20)  # of 8 GiB, most of which the system keeps for itself
    page.keyboard.press("Escape")
    dialog = models(page)
    dialog.get_by_text("Does not fit into this phone’s memory now").wait_for()
    dialog.get_by_role("button", name=f"Use: {NAME}").click()
    dialog.get_by_role("alert").get_by_text("Not enough memory").wait_for()
    page.keyboard.press("Escape")
    host.set(freeMemory=4 << 30)
    page.get_by_role("button", name="Try again").click()
    assert "Paris" in ask(page, QUESTION).inner_text()


def test_little_memory(page: Page, host: DesktopPageHost) -> None:
    host.set(trim=15)  # TRIM_MEMORY_RUNNING_CRITICAL
    page.locator(".strip").get_by_text("was stopped to free memory").wait_for()
    assert "Paris" in ask(page, QUESTION).inner_text()


def test_a_damaged_archive(host: DesktopPageHost, open_page: OpenPage, archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data)
    host.set(pick=str(damaged))
    page = open_page(host.address, init_script=BRIDGE, **PHONE)
    page.get_by_role("button", name="Add from a .zip file").click()
    page.get_by_role("alert").get_by_text("damaged").wait_for(timeout=60_000)


@pytest.mark.timeout(1800)  # the APK may have to be built
def test_page_and_engine_out_of_the_apk(
    make_host: MakeHost, open_page: OpenPage, archive: Path, apk: Path
) -> None:
    """A conversation, a crash in it, and another answer, on a CPU as in a phone of 2018."""
    emulated = [command("qemu-aarch64"), "-cpu", "cortex-a76", str(apk / ENGINE)]
    host = make_host(emulated, apk / "assets" / "page")
    page = with_model(open_page, host, archive)
    longest_answer(page, 8)
    assert "Paris" in ask(page, QUESTION, EMULATED_S).inner_text()
    longest_answer(page, 500)
    send(page, "And of Italy?")
    page.wait_for_function(
        "() => document.querySelectorAll('.answer .markdown')[1]?.textContent.length > 5",
        timeout=EMULATED_S * 1000,
    )
    host.engine().kill()
    page.get_by_text("The engine ended unexpectedly and was started again.").first.wait_for(timeout=60_000)
    longest_answer(page, 4)
    page.get_by_label("Try again").click()
    wait_done(page, EMULATED_S)
    assert page.locator(".ending.failed").count() == 0
    assert page.locator(".answer").count() == 2
