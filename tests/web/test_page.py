"""The page's own doings, against a server whose answers are known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from web.driving import ask, begin_watching_pauses, longest_pause_s, send, titles, wait_done
from web.scripted_server import ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from web.conftest import OpenPage

FROZEN_S = 5.0  # what grows with the square of the length takes minutes; a busy machine does not
SCRIPTS = {
    "long": [f"word{index} " for index in range(2000)],
    "code": ["Here:\n\n```python\n", "x = '<b>'\n", "```\n"],
    "think": ["<think>Let me ", "see.</think>\n\n", "The answer is **4**."],
}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(SCRIPTS)
    yield server
    server.close()


@pytest.fixture
def page(open_page: OpenPage, server: ScriptedServer) -> Page:
    return open_page(server.address)


def test_an_answer_streams_with_its_figures(page: Page) -> None:
    answer = ask(page, "Hello there")
    assert "You said 1 things, the last being “Hello there”" in answer.inner_text()
    assert "12 of 20 prompt tokens reused" in answer.locator(".figures").inner_text()
    assert page.get_by_label("Context used").get_attribute("max") == "2048"
    assert int(page.get_by_label("Context used").get_attribute("value") or 0) > 20
    assert titles(page) == ["Hello there"]


def test_the_whole_conversation_and_its_settings_are_sent(page: Page, server: ScriptedServer) -> None:
    ask(page, "One")
    page.get_by_label("Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Top k").fill("-5")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Top p").focus()
    assert page.get_by_text("From 0 to 1000").is_visible()
    page.get_by_role("button", name="Done").click()
    ask(page, "Two")
    sent = server.requests[-1]
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert (sent["temperature"], sent["seed"], sent["stream"]) == (0.3, 7, True)
    assert "top_k" not in sent
    assert sent["model"] == "scripted-135m"


def test_presets_and_defaults_of_new_conversations(page: Page, server: ScriptedServer) -> None:
    page.get_by_label("Settings", exact=True).click()
    page.get_by_role("button", name="Creative").click()
    page.get_by_role("button", name="Use for new conversations").click()
    page.keyboard.press("Escape")
    page.reload()
    ask(page, "Hello")
    assert server.requests[-1]["temperature"] == 1
    assert server.requests[-1]["min_p"] == 0.05


def test_stop_keeps_what_came_and_frees_the_server(page: Page, server: ScriptedServer) -> None:
    send(page, "script:long")
    page.get_by_text("word20 ").wait_for()
    page.get_by_role("button", name="Stop").click()
    wait_done(page)
    answer = page.locator(".answer").inner_text()
    assert "word20" in answer
    assert "word1999" not in answer
    assert "Stopped" in answer
    deadline = time.monotonic() + 10
    while server.cancelled == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.cancelled == 1


def test_regenerate_asks_the_same_again(page: Page, server: ScriptedServer) -> None:
    ask(page, "Hello")
    page.get_by_label("Regenerate").click()
    wait_done(page)
    assert page.locator(".answer").count() == 1
    assert server.requests[0]["messages"] == server.requests[1]["messages"]


def test_edit_and_resend_replaces_what_came_after(page: Page, server: ScriptedServer) -> None:
    ask(page, "First")
    ask(page, "Second")
    page.locator(".question").first.hover()
    page.get_by_label("Edit", exact=True).first.click()
    page.get_by_label("Edit your message").fill("Changed")
    page.get_by_role("button", name="Send again").click()
    wait_done(page)
    assert page.locator(".bubble").all_inner_texts() == ["Changed"]
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "Changed"}]
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Second", exact=True).wait_for()
    from playwright.sync_api import expect

    # Waits until they are drawn: what is not has no inner text.
    expect(page.locator(".bubble")).to_have_text(["First", "Second"], use_inner_text=True)
    assert page.locator(".bubble").all_inner_texts() == ["First", "Second"]


def test_reload_keeps_the_conversation(page: Page) -> None:
    ask(page, "Remember me")
    answer = page.locator(".answer .markdown").inner_text()
    page.reload()
    page.locator(".answer").wait_for()
    assert page.locator(".answer .markdown").inner_text() == answer
    assert titles(page) == ["Remember me"]


def test_reload_during_an_answer_keeps_most_of_it(page: Page) -> None:
    send(page, "script:long")
    page.get_by_text("word300 ").wait_for(timeout=60_000)
    page.reload()
    page.get_by_text("word10 ").wait_for()


def test_rename_search_delete_and_undo(page: Page) -> None:
    ask(page, "About boats")
    page.get_by_role("button", name="New chat").click()
    ask(page, "About trains")
    page.get_by_text("About boats", exact=True).hover()
    page.get_by_label("Rename “About boats”").click()
    page.get_by_label("Rename “About boats”").fill("Sailing")
    page.keyboard.press("Enter")
    page.get_by_text("Sailing", exact=True).wait_for()
    page.get_by_label("Search conversations").fill("BOATS")
    page.wait_for_function("() => document.querySelectorAll('.item-open').length === 1")
    assert titles(page) == ["Sailing"]
    page.get_by_label("Search conversations").fill("")
    page.wait_for_function("() => document.querySelectorAll('.item-open').length === 2")
    page.get_by_text("Sailing", exact=True).hover()
    page.get_by_label("Delete “Sailing”").click()
    page.wait_for_function("() => document.querySelectorAll('.item-open').length === 1")
    assert titles(page) == ["About trains"]
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Sailing", exact=True).click()
    page.get_by_text("About boats", exact=True).wait_for()


def test_export_and_import_give_the_same_conversations(
    page: Page, tmp_path: Path, open_page: OpenPage
) -> None:
    ask(page, "Line one\nline “two” 你好 🙂")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    file = tmp_path / "conversations.json"
    download.value.save_as(file)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["conversations"][0]["messages"][0]["text"] == "Line one\nline “two” 你好 🙂"

    other = open_page(page.url)
    assert titles(other) == []
    other.locator("input[type=file]").set_input_files(file)
    other.get_by_text("Conversations imported: 1").wait_for()
    other.locator(".item-open").click()
    other.locator(".answer").wait_for()
    assert other.locator(".bubble").inner_text() == page.locator(".bubble").inner_text()
    assert other.locator(".answer").inner_text() == page.locator(".answer").inner_text()


def test_a_wrong_file_is_refused_with_the_place(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    messages = [{"role": "user", "text": "a"}, {"role": "robot", "text": "b"}]
    wrong = {"format": "pocketglm-conversations", "version": 1, "conversations": [{"messages": messages}]}
    file.write_text(json.dumps(wrong))
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text('conversations[0].messages[1].role is "robot"').wait_for()
    assert titles(page) == []


def test_a_conversation_of_a_thousand_messages_stays_fast(page: Page, tmp_path: Path) -> None:
    answer = "Some **words** with `code` and [a link](https://example.com).\n\n" * 20
    code = "\n```python\nprint('x')  # comment\n```\n"
    messages = [{"role": "user", "text": "Go on"}, {"role": "assistant", "text": answer + code}] * 500
    conversation = {"title": "Long", "created": 1, "updated": 2, "settings": {}, "messages": messages}
    file = tmp_path / "long.json"
    content = {"format": "pocketglm-conversations", "version": 1, "conversations": [conversation]}
    file.write_text(json.dumps(content))
    page.locator("input[type=file]").set_input_files(file)
    begin_watching_pauses(page)
    page.get_by_text("Long", exact=True).click()
    page.locator(".answer").last.wait_for()
    page.wait_for_timeout(300)
    opening_s = longest_pause_s(page)
    begin_watching_pauses(page)
    ask(page, "script:code")
    streaming_s = longest_pause_s(page)
    print(f"1000 messages: opening {opening_s:.3f} s, streaming {streaming_s:.3f} s")
    assert max(opening_s, streaming_s) < FROZEN_S
    page.locator(".answer").first.scroll_into_view_if_needed()
    page.locator(".answer").first.locator(".hljs-string").wait_for()


def test_code_is_coloured_and_copied(page: Page) -> None:
    answer = ask(page, "script:code")
    assert answer.locator(".hljs-string").inner_text() == "'<b>'"
    answer.get_by_role("button", name="Copy code").click()
    answer.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "x = '<b>'\n"


def test_thoughts_stand_apart_and_are_not_sent_back(page: Page, server: ScriptedServer) -> None:
    answer = ask(page, "script:think")
    assert answer.locator("summary").inner_text() == "Thoughts"
    assert answer.locator(".markdown").inner_text().strip() == "The answer is 4."
    ask(page, "Thanks")
    assert server.requests[-1]["messages"][1]["content"] == "The answer is **4**."


def test_a_key_is_asked_for_and_kept_for_the_tab(open_page: OpenPage) -> None:
    server = ScriptedServer({}, api_key="secret")
    try:
        page = open_page(server.address)
        key = page.get_by_role("textbox", name="API key")
        key.fill("wrong")
        key.press("Enter")
        page.get_by_text("did not accept this key").wait_for()
        key.fill("secret")
        key.press("Enter")
        page.get_by_text("scripted-135m").wait_for()
        page.reload()
        assert "Good!" in ask(page, "Hello").inner_text()
        stored = page.evaluate("[JSON.stringify({...localStorage}), JSON.stringify({...sessionStorage})]")
        assert "secret" not in stored[0]
        assert "secret" in stored[1]
    finally:
        server.close()


def test_a_lost_server_is_said_and_the_answer_can_be_tried_again(
    open_page: OpenPage, server: ScriptedServer
) -> None:
    page = open_page(server.address)
    ask(page, "Hello")
    page.context.set_offline(True)
    send(page, "Are you there?")
    page.get_by_text("The answer failed").wait_for()
    page.context.set_offline(False)
    page.get_by_label("Try again").click()
    wait_done(page)
    assert "Are you there?" in page.locator(".answer").last.inner_text()
