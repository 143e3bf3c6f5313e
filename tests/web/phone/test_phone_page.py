"""The app's page in a browser, a scripted app around it: importing, running, failing, in both languages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from web.driving import ask, send
from web.phone.page_host import BRIDGE, need_page
from web.phone.scripted_host import MIB, Failure, Phone, ScriptedHost, ScriptedPackage
from web.test_access import AXE, findings

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from web.conftest import OpenPage

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL: dict[str, Any] = {**PHONE, "viewport": {"width": 360, "height": 640}}
TURNED = {"width": 844, "height": 390}

OpenPhone = Callable[..., "Page"]


@pytest.fixture
def made() -> Iterator[list[ScriptedHost]]:
    hosts: list[ScriptedHost] = []
    yield hosts
    for host in hosts:
        host.close()


@pytest.fixture
def make_host(made: list[ScriptedHost]) -> Callable[..., ScriptedHost]:
    need_page()

    def make(*packages: ScriptedPackage, **options: Any) -> ScriptedHost:
        made.append(ScriptedHost(*packages, **options))
        return made[-1]

    return make


@pytest.fixture
def open_phone(open_page: OpenPage) -> OpenPhone:
    def open_(host: ScriptedHost, **options: Any) -> Page:
        return open_page(host.address, init_script=BRIDGE, **{**PHONE, **options})

    return open_


def one() -> ScriptedPackage:
    return ScriptedPackage("0123456789abcdef", "smollm2-int4")


def other() -> ScriptedPackage:
    return ScriptedPackage("fedcba9876543210", "chatglm-6b-int4", bytes=3446 * MIB, copied=3446 * MIB)


def models(page: Page) -> Locator:
    """The dialog with the models, opened."""
    page.locator(".header .chip").click()
    dialog = page.get_by_role("dialog", name="Models")
    dialog.wait_for()
    return dialog


def use(page: Page, name: str) -> None:
    """Loads a model and waits until it answers."""
    dialog = models(page)
    dialog.get_by_role("button", name=f"Use: {name}").click()
    dialog.get_by_text("In use").wait_for()
    page.keyboard.press("Escape")


def until(page: Page, holds: Callable[[], bool], timeout_s: float = 30) -> None:
    """Waits while the page goes on."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


@pytest.fixture
def host(make_host: Callable[..., ScriptedHost]) -> ScriptedHost:
    return make_host(one(), other())


@pytest.fixture
def page(open_phone: OpenPhone, host: ScriptedHost) -> Page:
    page = open_phone(host)
    use(page, "smollm2-int4")
    return page


# Importing


@pytest.mark.parametrize("way", ["zip", "folder"])
def test_the_first_model_is_imported_and_answers(
    make_host: Callable[..., ScriptedHost], open_phone: OpenPhone, way: str
) -> None:
    host = make_host()
    host.wanted = ScriptedPackage("0123456789abcdef", "smollm2-int4", complete=False, copied=0)
    page = open_phone(host)
    page.get_by_text("pocketglm export MODEL --format zip").wait_for()
    page.get_by_role("button", name=f"Add from a {'.zip file' if way == 'zip' else 'folder'}").click()
    page.get_by_text("50 MiB of 100 MiB").wait_for()
    page.get_by_text("block_05.mnn.weight").wait_for()
    assert page.get_by_role("progressbar", name="Adding a model").get_attribute("value") == str(50 * MIB)
    assert page.get_by_text("Add from a").count() == 0  # one at a time
    host.go_on.set()
    page.get_by_text("“smollm2-int4” was added").first.wait_for()
    assert "You said “Hello”. Good!" in ask(page, "Hello").inner_text()
    assert host.calls("packages.import") == [{"kind": way}]


def test_an_import_is_cancelled_and_continued(
    make_host: Callable[..., ScriptedHost], open_phone: OpenPhone
) -> None:
    host = make_host(one())
    host.wanted = ScriptedPackage("fedcba9876543210", "chatglm", complete=False, copied=0)
    page = open_phone(host)
    dialog = models(page)
    dialog.get_by_role("button", name="Add from a .zip file").click()
    dialog.get_by_text("50 MiB of 100 MiB").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.get_by_text("Interrupted: 50 MiB of 100 MiB are here.").wait_for()
    assert dialog.get_by_role("button", name="Use: chatglm").count() == 0
    assert dialog.get_by_role("alert").count() == 0  # who cancels needs no error
    dialog.get_by_role("button", name="Add from a .zip file").click()
    dialog.get_by_text("In use").wait_for()  # the first model that is added is loaded
    assert host.packages["fedcba9876543210"].complete


def test_going_back_from_the_picker_says_nothing(host: ScriptedHost, page: Page) -> None:
    dialog = models(page)
    dialog.get_by_role("button", name="Add from a folder").click()
    page.wait_for_function("() => document.querySelector('.import-progress') === null")
    assert dialog.get_by_role("alert").count() == 0


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure("storage", needed=5 * MIB, free=3 * MIB), "5.0 MiB are needed, 3.0 MiB are free"),
        (Failure("damaged", file="block_03.mnn.weight"), "A file is damaged: block_03.mnn.weight"),
        (Failure("package"), "not a PocketGLM model"),
        (Failure("source", file="x.zip"), "is not what it should be: x.zip"),
        (Failure("exists", package="0123456789abcdef"), "is here already"),
        (Failure("busy"), "Something else is still running"),
        (Failure("internal"), "Something went wrong in the app: scripted: internal"),
    ],
    ids=lambda value: value.code if isinstance(value, Failure) else "",
)
def test_why_an_import_failed(host: ScriptedHost, open_phone: OpenPhone, failure: Failure, said: str) -> None:
    host.wanted = failure
    dialog = models(open_phone(host))
    dialog.get_by_role("button", name="Add from a .zip file").click()
    dialog.get_by_role("alert").get_by_text(said).wait_for()
    dialog.get_by_role("button", name="Add from a .zip file").wait_for()


def test_an_import_ends_with_the_page_that_began_it(host: ScriptedHost, open_phone: OpenPhone) -> None:
    host.wanted = ScriptedPackage("00000000000000ff", "third", complete=False, copied=0)
    page = open_phone(host)
    dialog = models(page)
    dialog.get_by_role("button", name="Add from a .zip file").click()
    dialog.get_by_text("50 MiB of 100 MiB").wait_for()
    page.reload()
    page.locator("#message").wait_for()
    models(page).get_by_text("Interrupted: 50 MiB of 100 MiB are here.").wait_for()
    assert page.locator(".import-progress").count() == 0


# Packages


def test_rename_and_delete(host: ScriptedHost, page: Page) -> None:
    dialog = models(page)
    dialog.get_by_role("button", name="Rename “smollm2-int4”").click()
    field = dialog.get_by_role("textbox", name="Rename “smollm2-int4”")
    field.fill("小模型 🙂")
    field.press("Enter")
    dialog.get_by_role("heading", name="小模型 🙂").wait_for()
    dialog.get_by_role("button", name="Delete “chatglm-6b-int4”").click()
    dialog.get_by_text("Delete “chatglm-6b-int4” and its 3.4 GiB from this phone?").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    assert len(host.packages) == 2
    dialog.get_by_role("button", name="Delete “chatglm-6b-int4”").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.package').length === 1")
    page.keyboard.press("Escape")
    assert page.locator(".header .chip").inner_text() == "小模型 🙂"
    assert list(host.packages) == ["0123456789abcdef"]


def test_the_model_in_use_is_stopped_and_deleted(host: ScriptedHost, page: Page) -> None:
    dialog = models(page)
    dialog.get_by_role("button", name="Delete “smollm2-int4”").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.package').length === 1")
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Choose a model").wait_for()
    assert len(host.calls("engine.stop")) == 1


def test_what_failed_is_said_in_the_dialog(host: ScriptedHost, page: Page) -> None:
    dialog = models(page)
    host.refusals["packages.delete"] = Failure("missing")
    dialog.get_by_role("button", name="Delete “chatglm-6b-int4”").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    dialog.get_by_role("alert").get_by_text("This model is no longer here").wait_for()


def test_a_model_that_cannot_fit(make_host: Callable[..., ScriptedHost], open_phone: OpenPhone) -> None:
    phone = Phone(free=1 << 30, needed={"fedcba9876543210": 5 << 30})
    host = make_host(one(), other(), phone=phone)
    page = open_phone(host)
    dialog = models(page)
    dialog.get_by_text("memory now: 5.0 GiB are needed, 1.0 GiB are free.").wait_for()
    dialog.get_by_role("button", name="Use: chatglm-6b-int4").click()
    dialog.get_by_role("alert").get_by_text("5.0 GiB are needed, 1.0 GiB are free").wait_for()
    page.keyboard.press("Escape")
    page.locator(".strip").get_by_text("“chatglm-6b-int4” does not run: Not enough memory").wait_for()
    phone.free = 6 << 30  # other apps were closed
    page.get_by_role("button", name="Try again").click()
    assert "Good!" in ask(page, "Hello").inner_text()


def test_the_choices_reach_the_engine(host: ScriptedHost, open_phone: OpenPhone) -> None:
    page = open_phone(host)
    dialog = models(page)
    dialog.get_by_text("Memory and speed").click()
    dialog.get_by_label("Context").select_option("1024")
    dialog.get_by_label("KV cache").select_option("int8")
    dialog.get_by_label("Threads").select_option("2")
    dialog.get_by_role("button", name="Use: smollm2-int4").click()
    dialog.get_by_text("In use").wait_for()
    chosen = {"context": 1024, "kv": "int8", "threads": 2}
    assert host.calls("engine.start") == [{"package": "0123456789abcdef", **chosen}]
    page.reload()
    page.get_by_label("Context used").wait_for()
    assert page.get_by_label("Context used").get_attribute("max") == "1024"
    assert host.calls("engine.start")[-1] == {"package": "0123456789abcdef", **chosen}


# Answers


def test_a_conversation(host: ScriptedHost, page: Page) -> None:
    answer = ask(page, "Hello there")
    assert "You said “Hello there”. Good!" in answer.inner_text()
    assert "12 of" in answer.locator(".figures").inner_text()
    assert "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n" in host.prompts[-1]
    ask(page, "script:emoji")
    assert "你好 👨\u200d👩\u200d👧 é" in page.locator(".answer").last.inner_text()
    ask(page, "<|im_end|> is text")
    assert host.prompts[-1].count("<|im_end|>") == 6  # five turns, and the one in the text
    page.reload()
    page.locator(".answer").nth(2).wait_for()
    assert page.locator(".header .chip").inner_text() == "smollm2-int4"  # loaded again by itself
    assert "Good!" in ask(page, "Again").inner_text()


def test_a_stop_string_ends_the_answer(page: Page) -> None:
    text = ask(page, "script:halt").locator(".markdown").inner_text()
    assert text.strip() == "before"


def test_stop(host: ScriptedHost, page: Page) -> None:
    send(page, "script:long")
    page.get_by_text("word20 ").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Stopped", exact=True).wait_for()
    assert "word2999" not in page.locator(".answer").inner_text()
    assert "Good!" in ask(page, "And now?").inner_text()
    assert "word20 " in host.prompts[-1]


def test_the_answer_goes_on_when_the_screen_turns(page: Page) -> None:
    send(page, "script:long")
    page.get_by_text("word20 ").wait_for()
    page.set_viewport_size(TURNED)
    page.get_by_text("word200 ").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == TURNED["width"]
    assert page.get_by_role("button", name="Stop", exact=True).is_visible()
    page.set_viewport_size(PHONE["viewport"])
    page.get_by_text("word400 ").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Stopped", exact=True).wait_for()


def test_the_engine_crashes_and_the_conversation_stays(host: ScriptedHost, page: Page) -> None:
    ask(page, "First")
    send(page, "script:long")
    page.get_by_text("word20 ").wait_for()
    host.crash()
    page.locator(".ending.failed").get_by_text("The engine ended. It is being started again.").wait_for()
    page.get_by_text("The engine ended unexpectedly and was started again.").first.wait_for()
    assert "word20 " in page.locator(".answer").last.inner_text()
    page.get_by_label("Try again").click()
    page.get_by_text("word30 ").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Stopped", exact=True).wait_for()
    assert "You said “First”. Good!" in page.locator(".answer").first.inner_text()
    assert page.locator(".item-open").all_text_contents() == ["First"]
    assert host.engines == 2


def test_an_engine_that_crashes_again_and_again_is_left_alone(host: ScriptedHost, page: Page) -> None:
    for number in (2, 3):
        host.crash()
        until(page, lambda number=number: host.engines == number)  # type: ignore[misc]
        page.wait_for_function("() => document.querySelector('.strip .context') !== null")
    host.crash()
    page.locator(".strip").get_by_text("The engine ends again and again").wait_for()
    assert host.engines == 3
    page.get_by_role("button", name="Try again").click()
    assert "Good!" in ask(page, "Better?").inner_text()


def test_an_engine_that_refuses_the_model(host: ScriptedHost, open_phone: OpenPhone) -> None:
    host.refusals["engine.start"] = Failure("engine", engineCode="package")
    page = open_phone(host)
    dialog = models(page)
    dialog.get_by_role("button", name="Use: smollm2-int4").click()
    dialog.get_by_role("alert").get_by_text("The engine refuses it: scripted: engine").wait_for()
    page.keyboard.press("Escape")
    send(page, "Hello")
    page.locator(".ending.failed").get_by_text("No model is loaded").wait_for()


def test_little_memory(host: ScriptedHost, page: Page) -> None:
    host.memory_low(severe=False)
    page.get_by_text("Closing other apps helps").first.wait_for()
    send(page, "script:long")
    page.get_by_text("word20 ").wait_for()
    host.memory_low(severe=True)
    page.get_by_text("The answer was stopped: the phone is short of memory").first.wait_for()
    page.get_by_text("Stopped", exact=True).wait_for()
    host.memory_low(severe=True)
    page.locator(".strip").get_by_text("was stopped to free memory").wait_for()
    assert "Good!" in ask(page, "Are you there?").inner_text()  # it is started again
    assert len(host.calls("engine.stop")) == 1
    assert host.engines == 2


def test_an_answer_ends_with_the_page_that_asked(host: ScriptedHost, page: Page) -> None:
    send(page, "script:long")
    page.get_by_text("word900 ").wait_for()  # the text is kept every two seconds
    page.reload()
    page.get_by_text("word20 ").wait_for()
    answer = ask(page, "Hello")
    assert answer.locator(".markdown").inner_text().strip() == "You said “Hello”. Good!"


def test_a_long_conversation_says_what_to_do(
    make_host: Callable[..., ScriptedHost], open_phone: OpenPhone
) -> None:
    short = one()
    short.contextLength = 200
    page = open_phone(make_host(short))
    use(page, "smollm2-int4")
    send(page, "word " * 60)
    page.locator(".ending.failed").get_by_text("the context holds 200").wait_for()


# For everyone


def test_back_closes_what_is_open(host: ScriptedHost, page: Page) -> None:
    """What Android's back button does while the page's history has an entry to go back to."""
    page.get_by_label("Show conversations").click()
    page.locator(".sidebar.open").wait_for()
    page.go_back()
    page.locator(".sidebar.open").wait_for(state="detached")
    dialog = models(page)
    page.go_back()
    dialog.wait_for(state="detached")
    page.get_by_label("Settings", exact=True).click()
    page.get_by_role("button", name="Done").click()
    page.wait_for_function("() => history.state === null")  # closed otherwise: nothing is left to go back to
    assert "Good!" in ask(page, "Hello").inner_text()


def test_chinese(host: ScriptedHost, open_phone: OpenPhone) -> None:
    host.wanted = Failure("storage", needed=5 * MIB, free=3 * MIB)
    page = open_phone(host, locale="zh-CN")
    page.locator(".header .chip").click()
    dialog = page.get_by_role("dialog", name="模型")
    dialog.get_by_role("button", name="从 .zip 文件添加").click()
    dialog.get_by_text("存储空间不足：需要 5.0 MiB，可用 3.0 MiB").wait_for()
    dialog.get_by_role("button", name="使用: smollm2-int4").click()
    dialog.get_by_text("使用中").wait_for()
    page.keyboard.press("Escape")
    answer = ask(page, "你好")
    assert "You said “你好”. Good!" in answer.inner_text()
    page.get_by_label("显示对话列表").click()
    page.get_by_label("语言").select_option("en")
    page.keyboard.press("Escape")
    page.locator(".header .chip").click()
    page.get_by_role("dialog", name="Models").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(host: ScriptedHost, open_phone: OpenPhone, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; `make web-packages` does it")
    host.wanted = Failure("damaged", file="head.mnn.weight")
    page = open_phone(host, color_scheme=scheme)
    assert findings(page) == []
    dialog = models(page)
    dialog.get_by_role("button", name="Add from a folder").click()
    dialog.get_by_role("alert").wait_for()
    dialog.get_by_role("button", name="Delete “smollm2-int4”").click()
    dialog.get_by_text("Memory and speed").click()
    assert findings(page) == []
    page.keyboard.press("Escape")
    use(page, "smollm2-int4")
    ask(page, "Hello")
    assert findings(page) == []


def test_a_narrow_phone_shows_everything(host: ScriptedHost, open_phone: OpenPhone) -> None:
    host.packages["fedcba9876543210"].name = "a-name-without-blanks-" * 3 + "end"
    page = open_phone(host, **SMALL)
    width = SMALL["viewport"]["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dialog = models(page)
    dialog.get_by_text("Memory and speed").click()
    assert dialog.evaluate("(element) => element.scrollWidth <= element.clientWidth")
    for button in dialog.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 44  # a finger's size
    page.keyboard.press("Escape")
    use(page, "smollm2-int4")
    ask(page, "Hello")
    assert page.evaluate("document.documentElement.scrollWidth") == width
