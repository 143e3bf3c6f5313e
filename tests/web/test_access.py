"""For everyone: by keyboard alone, in both languages, for screen readers, on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from web.conftest import DESKTOP, PHONE
from web.driving import ask, send, titles, wait_done
from web.scripted_server import ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from web.conftest import OpenPage

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
MARKDOWN = (
    "# Title\n\nText with `code`, **bold** and [a link](https://example.com).\n\n> quoted\n\n"
    "```python\ndef f(x: int = 3) -> str:\n    return f'{x}'  # comment\n```\n\n```diff\n- a\n+ b\n```\n\n"
    "| a | b |\n| - | - |\n| 1 | 2 |\n\n1. one\n2. two\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    long = [f"word{index} " for index in range(2000)]
    server = ScriptedServer({"markdown": [MARKDOWN], "long": long, "think": ["<think>Hm.</think>\n\nYes."]})
    yield server
    server.close()


def findings(page: Page) -> list[str]:
    """Serious and critical findings of axe-core: rule, element, why."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    result: dict[str, Any] = page.evaluate("axe.run(document)")
    return [
        f"{violation['id']}: {node['html'][:120]}: {node['failureSummary']}"
        for violation in result["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(
    open_page: OpenPage, server: ScriptedServer, scheme: str, size: dict[str, int]
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; `make web-packages` does it")
    page = open_page(server.address, color_scheme=scheme, viewport=size)
    assert findings(page) == []
    ask(page, "Hello")
    ask(page, "script:markdown")
    ask(page, "script:think")
    assert findings(page) == []
    if size is PHONE:
        page.get_by_label("Show conversations").click()
        assert findings(page) == []
        page.keyboard.press("Escape")
    for label in ("Settings", "Model details"):
        page.get_by_label(label, exact=True).last.click()
        page.locator("dialog[open]").wait_for()
        assert findings(page) == []
        page.keyboard.press("Escape")
    page.locator(".answer").first.click()
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    assert findings(page) == []


def test_everything_by_keyboard(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address)
    keyboard = page.keyboard
    keyboard.type("One")
    keyboard.press("Shift+Enter")
    keyboard.type("two")
    keyboard.press("Enter")
    wait_done(page)
    assert page.locator(".bubble").inner_text() == "One\ntwo"
    keyboard.type("script:long")
    keyboard.press("Enter")
    page.get_by_text("word5 ").wait_for()
    keyboard.press("Escape")
    page.get_by_text("Stopped", exact=True).wait_for()
    keyboard.press("ArrowUp")
    page.wait_for_function("() => document.activeElement.ariaLabel === 'Edit your message'")
    keyboard.press("ControlOrMeta+A")
    keyboard.type("Three")
    keyboard.press("Enter")
    wait_done(page)
    assert page.locator(".bubble").last.inner_text() == "Three"
    keyboard.press("ControlOrMeta+Shift+O")
    keyboard.type("Another")
    keyboard.press("Enter")
    wait_done(page)
    keyboard.press("ControlOrMeta+K")
    keyboard.type("three")
    page.wait_for_function("() => document.querySelectorAll('.item-open').length === 1")
    keyboard.press("Tab")
    keyboard.press("Enter")
    page.get_by_text("Three", exact=True).wait_for()
    keyboard.press("ControlOrMeta+,")
    page.get_by_role("dialog", name="Settings").wait_for()
    keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


def test_every_control_can_be_reached_and_has_a_name(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address)
    ask(page, "Hello")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const e = document.activeElement; return e.ariaLabel || e.textContent.trim(); })()"
            )
        )
    assert all(reached[:20])
    for name in ("New chat", "Rename “Hello”", "Delete “Hello”", "Theme", "Edit", "Regenerate", "Settings"):
        assert name in reached
    assert reached.index("New chat") < reached.index("Settings") < reached.index("Regenerate")


def test_the_answer_is_announced(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address)
    page.evaluate(
        "() => { window.said = []; const region = document.querySelector('[aria-live]');"
        " const note = () => window.said.push(...Array.from(region.children, line => line.textContent));"
        " new MutationObserver(note)"
        ".observe(region, {childList: true, characterData: true, subtree: true}); }"
    )
    ask(page, "script:markdown")
    said = page.evaluate("window.said")
    assert "The model is answering" in said
    assert any("Text with code, bold" in text for text in said)


def test_enter_that_chooses_a_word_does_not_send(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address)
    field = page.locator("#message")
    field.fill("你好")
    field.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    page.wait_for_timeout(200)
    assert page.locator(".bubble").count() == 0


def test_chinese_by_the_browser_and_by_choice(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address, locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.get_by_placeholder("输入消息").wait_for()
    ask(page, "你好")
    assert titles(page) == ["你好"]
    page.get_by_label("语言").select_option("en")
    page.get_by_placeholder("Write a message").wait_for()
    page.reload()
    page.get_by_placeholder("Write a message").wait_for()


def test_the_theme_can_be_chosen(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.locator("#message").wait_for()
    assert page.evaluate(ground) == dark


def test_a_phone_shows_everything_without_scrolling_sideways(
    open_page: OpenPage, server: ScriptedServer
) -> None:
    page = open_page(server.address, viewport=PHONE, has_touch=True, is_mobile=True)
    ask(page, "script:markdown")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    for label in ("Message to the model", "Context used", "Model details", "Settings", "Show conversations"):
        box = page.get_by_label(label, exact=True).last.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    page.get_by_label("Show conversations").click()
    page.locator(".item-open").click()
    page.locator(".sidebar.open").wait_for(state="detached")


def test_scrolling_up_is_respected(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address)
    send(page, "script:long")
    page.get_by_text("word700 ").wait_for(timeout=60_000)
    page.locator(".thread").hover()
    page.mouse.wheel(0, -5000)
    page.get_by_label("To the end").wait_for()
    top = page.evaluate("document.querySelector('.thread').scrollTop")
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.thread').scrollTop") == top
    page.get_by_label("To the end").click()
    page.get_by_label("To the end").wait_for(state="detached")
    page.keyboard.press("Escape")
