"""What a model might write, by accident or by somebody's design: nothing of it may do anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from web.driving import ask, begin_watching_pauses, longest_pause_s, send, wait_done
from web.scripted_server import Script, ScriptedServer, event

if TYPE_CHECKING:
    from web.conftest import OpenPage

MARKUP = """<script>alert(1)</script> <img src=x onerror=alert(1)> <svg/onload=alert(1)>
<iframe srcdoc="<script>alert(1)</script>"></iframe> <a href="javascript:alert(1)" onclick="alert(1)">a</a>
<style>*{display:none}</style> <form action="https://example.com">
<input name=a autofocus onfocus=alert(1)></form>
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">

[one](javascript:alert(1)) [two](JaVaScRiPt&colon;alert(1)) [three](data:text/html,<script>alert(1)</script>)
[four](vbscript:x) [five](<java\tscript:alert(1)>) [good](https://example.com/a?b=1&c="d)
![picture](https://example.com/track.png?secret) ![x](x"onerror="alert(1))

```"><script>alert(1)</script>
</code></pre><script>alert(1)</script>
```

[ref]: javascript:alert(1)
[ref]
"""
ROWS = "\n".join(f"| {row} | {'| '.join(str(row * column) for column in range(12))} |" for row in range(8000))
TABLE = f"|{' h |' * 13}\n|{' - |' * 13}\n{ROWS}\n"
BROKEN = b'data: {"choices":[{"index":0,"delta":{"content":"ok \xff\xfe\xc3( \xed\xa0\x80 end"}}]}\n\n'
ODD = "\u202egnp.exe\u202c \u0000 \u200b \ud83d\ude00 \ufffd \u0301" + "Z\u0335\u0335\u0335" * 500
SCRIPTS: dict[str, Script] = {
    "markup": [MARKUP[at : at + 9] for at in range(0, len(MARKUP), 9)],
    "table": [TABLE[at : at + 4000] for at in range(0, len(TABLE), 4000)],
    "line": ["x" * 10_000] * 100,
    "words": ["lorem ipsum dolor " * 60] * 1000,
    "quotes": [
        ">" * 20_000 + " deep\n\n",
        "- " * 5_000 + "deep\n\n",
        "[" * 20_000 + "\n\n",
        "*" * 30_000 + "a",
    ],
    "broken": [BROKEN, " and on"],
    "odd": [ODD],
    "fence": ["```python\n", *["print('never closed')\n"] * 3000],
    "newlines": ["\n" * 1000, "a", "\r\n" * 1000, "b"],
    "not-json": [b"data: {nonsense\n\n"],
    "error": [event({"error": {"message": "<img src=x onerror=alert(1)> out of memory"}})],
    "wrong-types": [event({"choices": "x", "usage": 5, "timings": [1]}), event([1]), event(None), "fine"],
}
FROZEN_S = 5.0  # what grows with the square of the length takes minutes; a busy machine does not


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(SCRIPTS, delay_s=0.002)
    yield server
    server.close()


def test_markup_in_an_answer_stays_text(open_page: OpenPage, server: ScriptedServer) -> None:
    page = open_page(server.address)
    answer = ask(page, "script:markup")
    page.wait_for_timeout(300)
    body = answer.locator(".markdown")
    assert "<script>alert(1)</script>" in body.inner_text()
    assert body.locator("script, img, svg, iframe, style, form, input, math").count() == 0
    links = body.locator("a").evaluate_all(
        "links => links.map(link => [link.protocol, link.rel, link.target])"
    )
    assert links
    assert all(protocol in ("http:", "https:") for protocol, _, _ in links)
    assert all("noopener" in rel and target == "_blank" for _, rel, target in links)
    handlers = body.evaluate(
        "body => [...body.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        ".filter(name => name.startsWith('on') || name === 'style')"
    )
    assert handlers == []
    assert "example.com" in body.get_by_role("link", name="picture").inner_text()


@pytest.mark.parametrize("name", ["table", "line", "words", "quotes", "fence", "newlines", "odd"])
def test_the_page_stays_responsive(open_page: OpenPage, server: ScriptedServer, name: str) -> None:
    page = open_page(server.address)
    begin_watching_pauses(page)
    ask(page, f"script:{name}", timeout_s=120)
    page.wait_for_timeout(200)
    longest_s = longest_pause_s(page)
    print(f"{name}: longest pause {longest_s:.3f} s")
    assert longest_s < FROZEN_S
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    page.reload()
    page.locator(".answer").wait_for()
    assert "Good!" in ask(page, "Still there?").inner_text()


def test_broken_utf8_becomes_replacement_characters(open_page: OpenPage, server: ScriptedServer) -> None:
    answer = ask(open_page(server.address), "script:broken")
    text = answer.locator(".markdown").inner_text()
    assert text.startswith("ok \ufffd")
    assert text.rstrip().endswith("end and on")


@pytest.mark.parametrize(
    ("name", "said"), [("not-json", "not JSON"), ("error", "<img src=x onerror=alert(1)> out")]
)
def test_a_broken_stream_is_an_error_in_words(
    open_page: OpenPage, server: ScriptedServer, name: str, said: str
) -> None:
    page = open_page(server.address)
    send(page, f"script:{name}")
    wait_done(page)
    assert said in page.locator(".ending.failed").inner_text()
    assert "Good!" in ask(page, "Hello").inner_text()


def test_wrong_types_in_the_stream_are_ignored(open_page: OpenPage, server: ScriptedServer) -> None:
    answer = ask(open_page(server.address), "script:wrong-types")
    assert answer.locator(".markdown").inner_text().strip() == "fine"


def test_the_policy_forbids_what_the_sanitizer_might_miss(
    open_page: OpenPage, server: ScriptedServer
) -> None:
    """Straight into the DOM, past the sanitizer: the policy alone stops it."""
    page = open_page(server.address, reports_expected=True)
    page.evaluate(
        "() => { const box = document.createElement('div'); document.body.append(box);"
        " box.innerHTML = '<img src=x onerror=\"window.hacked = 1\">'; }"
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
