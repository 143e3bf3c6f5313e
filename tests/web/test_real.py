"""A conversation with a real model through the real server: SmolLM2, int4, as anybody would run it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from web.driving import ask, send, titles, wait_done

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from web.conftest import OpenPage

COMMAND = [sys.executable, "-m", "pocketglm"]


@pytest.fixture(scope="module")
def address(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`pocketglm serve` in a process of its own, on a free port."""
    package = tmp_path_factory.mktemp("web") / "smollm2-int4"
    subprocess.run(
        [*COMMAND, "convert", smollm2, "-o", package, "--bits", "4"], check=True, capture_output=True
    )
    log = package.parent / "serve.log"
    with log.open("wb") as output:
        command = [*COMMAND, "serve", package, "--port", "0", "--context", "2048"]
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield _wait_for_address(server, log)
        finally:
            server.terminate()
            server.wait(30)


def _wait_for_address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[0] + "/"
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text(encoding='utf-8', errors='replace')}")


@pytest.fixture
def page(open_page: OpenPage, address: str) -> Page:
    page = open_page(address)
    page.get_by_label("Settings", exact=True).click()
    page.get_by_role("button", name="Precise").click()
    page.get_by_label("Longest answer, tokens").fill("60")
    page.get_by_role("button", name="Done").click()
    return page


def figure(text: str, pattern: str) -> float:
    """The number of a pattern in a line of figures."""
    found = re.search(pattern, text)
    assert found, text
    return float(found[1].replace(",", ""))


def test_a_whole_conversation(page: Page) -> None:
    first = ask(page, "What is the capital of France?")
    assert "Paris" in first.inner_text()
    assert figure(first.locator(".figures").inner_text(), r"([\d.]+) tokens/s") > 0
    second = ask(page, "And which river flows through it?")
    figures = second.locator(".figures").inner_text()
    assert figure(figures, r"(\d+) of \d+ prompt tokens reused") > 10
    assert titles(page) == ["What is the capital of France?"]

    answer = second.locator(".markdown").inner_text()
    page.get_by_label("Regenerate").click()
    wait_done(page)
    assert page.locator(".answer .markdown").last.inner_text() == answer  # greedy: the same again

    page.reload()
    page.locator(".answer").nth(1).wait_for()
    assert page.locator(".answer .markdown").last.inner_text() == answer


def test_edit_and_resend(page: Page) -> None:
    ask(page, "What is the capital of France?")
    page.locator(".question").hover()
    page.get_by_label("Edit", exact=True).click()
    page.get_by_label("Edit your message").fill("What is the capital of Italy?")
    page.keyboard.press("Enter")
    wait_done(page)
    assert page.locator(".bubble").all_inner_texts() == ["What is the capital of Italy?"]
    assert "Rome" in page.locator(".answer").inner_text()


def test_stop_frees_the_server(page: Page, address: str) -> None:
    page.get_by_label("Settings", exact=True).click()
    page.get_by_label("Longest answer, tokens").fill("1900")
    page.get_by_role("button", name="Done").click()
    send(page, "Write a very long story about a boat.")
    page.wait_for_function("() => document.querySelector('.answer .markdown')?.textContent.length > 40")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped", exact=True).wait_for()
    running = "fetch('v1/pocketglm/status').then(r => r.json()).then(s => s.requests.running)"
    deadline = time.monotonic() + 20
    while page.evaluate(running) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert page.evaluate(running) == 0


def test_the_figures_are_the_servers(page: Page) -> None:
    ask(page, "Hello")
    status = page.evaluate("fetch('v1/pocketglm/status').then(r => r.json())")
    assert page.get_by_label("Context used").get_attribute("max") == "2048"
    assert page.locator(".strip .cell").count() == len(status["blocks"]) == 30
    page.get_by_label("Model details").last.click()
    details = page.get_by_role("dialog").inner_text()
    assert status["model"] in details
    assert "0–29: native, ram" in details


def test_too_long_a_message_is_an_error_that_says_so(page: Page) -> None:
    send(page, "word " * 4000)
    wait_done(page)
    assert "2048" in page.locator(".ending.failed").inner_text().replace(",", "")
