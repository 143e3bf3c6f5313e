"""What a person does on the page, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def send(page: Page, text: str) -> None:
    """Writes a message and sends it with Enter."""
    field = page.locator("#message")
    field.fill(text)
    field.press("Enter")


def ask(page: Page, text: str, timeout_s: float = 60) -> Locator:
    """Sends a message and waits for the whole answer; the answer's element."""
    before = page.locator(".answer").count()
    send(page, text)
    answer = page.locator(".answer").nth(before)
    wait_done(page, timeout_s)
    return answer


def wait_done(page: Page, timeout_s: float = 60) -> None:
    """Waits until an answer is there and none is being written."""
    answer = page.locator(".answer").last
    answer.wait_for()
    page.wait_for_function(
        "() => document.querySelectorAll('.answer[aria-busy=true]').length === 0", timeout=timeout_s * 1000
    )


def titles(page: Page) -> list[str]:
    """The conversations in the list, in order."""
    return page.locator(".item-open").all_inner_texts()


def begin_watching_pauses(page: Page) -> None:
    """From now on the page notes the longest time in which it did not come round."""
    page.evaluate(
        "() => { clearInterval(window.watch); window.longest = 0; let last = performance.now();"
        " window.watch = setInterval(() => { const now = performance.now();"
        " window.longest = Math.max(window.longest, now - last); last = now; }, 20); }"
    )


def longest_pause_s(page: Page) -> float:
    """The longest pause since the watch began, in seconds."""
    return float(page.evaluate("window.longest")) / 1000
