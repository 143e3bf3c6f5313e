"""The picture of the web page in the README.

    python docs/screenshot.py PACKAGE [-o docs/images/page.png] [--chromium /usr/bin/chromium]

Enters: a package, best of SmolLM2. Leaves: a PNG of a conversation that the model really had, through
`pocketglm serve`, in a browser of 1280 by 800 points. Needs Chromium and playwright (the `test` extra).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURE = Path(__file__).parent / "images" / "page.png"
QUESTIONS = (
    "What is the capital of France?",
    "Write a Python function that returns the larger of two numbers, and explain it in one sentence.",
)
SETTINGS = {"temperature": 0, "max_tokens": 220}
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
ANSWERED = "() => !document.querySelector('.answer[aria-busy=true]')"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=PICTURE)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pocketglm",
        "serve",
        arguments.package,
        "--port",
        "0",
        "--context",
        "2048",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            photograph(address_of(server), arguments)
        finally:
            server.terminate()


def address_of(server: subprocess.Popen[str]) -> str:
    """Where the server says that its page is."""
    said = ""
    for line in server.stdout or ():
        said += line
        if found := re.search(r"http://\S+/(?=\s)", line):
            return found[0]
    raise SystemExit(f"the server ended:\n{said}")


def photograph(address: str, arguments: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=arguments.chromium, args=list(ARGUMENTS))
        page = browser.new_page(
            viewport={"width": 1280, "height": 800}, color_scheme=arguments.theme, locale="en-GB"
        )
        page.goto(address)
        page.evaluate("text => localStorage.setItem('pocketglm.settings', text)", json.dumps(SETTINGS))
        page.reload()
        for question in QUESTIONS:
            ask(page, question)
        page.mouse.move(700, 20)
        page.wait_for_timeout(300)
        page.screenshot(path=arguments.output)
        browser.close()


def ask(page: Page, question: str) -> None:
    """Sends a question and waits for the end of the answer."""
    before = page.locator(".answer").count()
    page.locator("#message").fill(question)
    page.locator("#message").press("Enter")
    page.locator(".answer").nth(before).wait_for()
    page.wait_for_function(ANSWERED, timeout=120_000)


if __name__ == "__main__":
    main()
