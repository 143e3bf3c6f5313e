"""A browser, a page in it, and servers for it to talk to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pocketglm.serve.web_files import NOT_BUILT, read_web_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

OpenPage = Callable[..., "Page"]


def browser_path() -> Path:
    """The machine's Chromium, or the one that POCKETGLM_CHROMIUM names."""
    named = os.environ.get("POCKETGLM_CHROMIUM")
    found = named or next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("no Chromium on PATH; install it or set POCKETGLM_CHROMIUM")
    return Path(found)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if read_web_files()["/"].data == NOT_BUILT:
        pytest.skip("the package was built without the web page (POCKETGLM_WEB=OFF)")
    path = browser_path()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens an address in a fresh profile. Errors and requests elsewhere fail the test."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_(
        address: str, reports_expected: bool = False, init_script: str | None = None, **options: Any
    ) -> Page:
        settings = {"viewport": DESKTOP, "locale": "en-GB", "color_scheme": "light", **options}
        context = browser.new_context(**settings)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
        contexts.append(context)
        if init_script is not None:
            context.add_init_script(init_script)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda shown: (wrong.append(f"dialog: {shown.message}"), shown.dismiss()))
        page.on("request", lambda request: _check_request(request.url, address, wrong))
        if not reports_expected:
            page.on("console", lambda message: _check_console(message, wrong))
        page.goto(address)
        page.get_by_label("Message to the model").or_(page.get_by_label("发给模型的消息")).wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong


def _check_request(url: str, address: str, wrong: list[str]) -> None:
    if not url.startswith((address, "blob:", "data:")):
        wrong.append(f"request to {url}")


def _check_console(message: Any, wrong: list[str]) -> None:
    if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
        wrong.append(message.text)
