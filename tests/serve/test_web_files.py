"""The page's files: those found at the start, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketglm.serve.web_files import read_web_files
from serve.running import running

PAGE = "<!doctype html><script src=assets/page-1a2b.js></script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    (web / "assets").mkdir(parents=True)
    (web / "index.html").write_text(PAGE)
    (web / "assets" / "page-1a2b.js").write_text("let a = 1;")
    (web / "assets" / "page-1a2b.js.map").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")
    return web


def test_files_are_served_with_their_types(folder: Path, causal_path: Path) -> None:
    with running(causal_path, web_files=read_web_files(folder)) as server:
        page = server.client.get("/")
        assert page.text == server.client.get("/index.html").text == PAGE
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
        script = server.client.get("/assets/page-1a2b.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "immutable" in script.headers["cache-control"]
        again = server.client.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert server.client.head("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/assets/page-1a2b.js.map",
        "/assets/",
        "/assets/../secret.txt",
        "/assets/%2e%2e/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//etc/passwd",
        "/assets/page-1a2b.js%00",
    ],
)
def test_nothing_else_is(folder: Path, causal_path: Path, path: str) -> None:
    with running(causal_path, web_files=read_web_files(folder)) as server:
        (folder / "assets" / "late.js").write_text("added after the start")
        assert server.client.get("/assets/late.js").status_code == 404
        assert server.client.get(path).status_code == 404


def test_a_page_that_was_not_built(tmp_path: Path) -> None:
    files = read_web_files(tmp_path / "nowhere")
    assert set(files) == {"/"}
    assert b"pip install" in files["/"].data
