"""The built page as the app carries it: small, complete in itself, and made for the bridge's policy."""

from __future__ import annotations

import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from web.phone.page_host import MEDIA_TYPES, PAGE, need_page, policy

MOST_BYTES = 300_000
"""Deflated, as an APK keeps it. The whole app should stay below 3 MB."""

NAMED_HOSTS = {"www.w3.org": "names of XML vocabularies", "github.com": "warnings of highlight.js"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    need_page()
    return {str(p.relative_to(PAGE)): p.read_bytes() for p in PAGE.rglob("*") if p.is_file()}


def test_it_is_small(files: dict[str, bytes]) -> None:
    assert sum(len(zlib.compress(data)) for data in files.values()) < MOST_BYTES


def test_the_app_can_serve_every_file(files: dict[str, bytes]) -> None:
    assert {Path(name).suffix for name in files} == set(MEDIA_TYPES)
    assert {Path(name).parts[0] for name in files} == {"index.html", "icon.svg", "assets"}


def test_it_names_no_other_place(files: dict[str, bytes]) -> None:
    found = {
        host
        for data in files.values()
        for host in re.findall(r"(?:https?|wss?)://([\w.-]+)", data.decode("utf-8"))
    }
    assert found <= set(NAMED_HOSTS)


class _Reader(HTMLParser):
    """What the policy does not allow in the page's text, and the addresses that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]


def test_nothing_is_inline(files: dict[str, bytes]) -> None:
    reader = _Reader()
    reader.feed(files["index.html"].decode("utf-8"))
    assert reader.inline == []
    assert all(address.removeprefix("./") in files for address in reader.addresses)
    assert reader.addresses
    assert b"url(data:" not in b"".join(files.values())


def test_the_policy_allows_nothing_inline_and_nothing_elsewhere() -> None:
    sources = {
        source for rule in policy().split("; ") for source in rule.split(" ")[1:] if source != "'self'"
    }
    assert sources == {"'none'"}
