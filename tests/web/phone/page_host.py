"""The app around the page, as far as the page can tell: its files, its policy, and the bridge over HTTP.

A host gets the page's texts in `receive` and answers with `emit`. What stands behind it is a script
(`scripted_host.py`) or the app's own Java host (`desktop_host.py`).
"""

from __future__ import annotations

import json
import queue
import re
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "build" / "phone-page"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# Android gives the page an object with one method, and calls one of the page's. Texts are sent one after
# the other; those that come before the page listens are lost, as they are there.
BRIDGE = """
if (location.protocol === 'http:') {
  const events = new EventSource('/host/events');
  let before = new Promise((open) => { events.onopen = open; });
  events.onmessage = ({ data }) => window.pocketglmReceive?.(JSON.parse(data));
  window.PocketGLMHost = { send(text) {
    const call = () => fetch('/host/send', { method: 'POST', body: text });
    before = before.then(call).catch(() => undefined); // at the test's end nobody answers
  } };
}
"""


@cache
def policy() -> str:
    """The content policy that the bridge's page promises."""
    text = (ROOT / "docs" / "android-bridge.md").read_text(encoding="utf-8")
    found = re.search(r"^    (default-src .*)$", text, re.MULTILINE)
    assert found
    return found[1]


def need_page() -> None:
    if not (PAGE / "index.html").is_file():
        pytest.skip("the app's page is not built; `make phone-page` does it")


class PageHost:
    """Serves the page in a folder until `close`. `texts` are the page's, read as JSON."""

    def __init__(self, page: Path = PAGE) -> None:
        self.page = page
        self.page_number = 0
        self.texts: list[dict[str, Any]] = []
        self._outbox: queue.Queue[str | None] = queue.Queue()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": self}))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/"

    def receive(self, text: str) -> None:
        """A text of the page; called in a thread of its own, one after the other."""
        raise NotImplementedError

    def resource(self, path: str) -> tuple[int, bytes]:
        """Status and content of an address below `/packages/`."""
        raise NotImplementedError

    def page_opened(self) -> None:
        """The page is there, for the first time or anew."""

    def emit(self, text: str) -> None:
        """Gives the page a text."""
        self._outbox.put(text)

    def event(self, name: str, **data: Any) -> None:
        self.emit(json.dumps({"event": name, "data": data}))

    def calls(self, method: str) -> list[dict[str, Any]]:
        """Parameters of all calls of one method so far."""
        return [call.get("params", {}) for call in self.texts if call["method"] == method]

    def connect(self) -> queue.Queue[str | None]:
        """What the page that was opened now is given; the one before gets no more."""
        self._outbox.put(None)
        self._outbox = queue.Queue()
        self.page_number += 1
        self.page_opened()
        return self._outbox

    def close(self) -> None:
        self._outbox.put(None)
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    host: PageHost

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet: the test's output is not a log."""

    def do_GET(self) -> None:
        path = self.path.removeprefix("/")
        file = self.host.page / (path or "index.html")
        if path == "host/events":
            self._events()
        elif path.startswith("packages/"):
            self._send(*self.host.resource(f"/{path}"), "application/octet-stream")
        elif file.suffix in MEDIA_TYPES and file.is_file() and ".." not in path:
            self._send(200, file.read_bytes(), MEDIA_TYPES[file.suffix])
        else:
            self._send(403, b"", "text/plain")

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode("utf-8")
        if self.path != "/host/send":
            self._send(403, b"", "text/plain")
            return
        self.host.texts.append(json.loads(text))
        self.host.receive(text)
        self._send(204, b"", "text/plain")

    def _events(self) -> None:
        outbox = self.host.connect()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": open\n\n")
        self.wfile.flush()
        try:
            while (text := outbox.get()) is not None:
                self.wfile.write(f"data: {json.dumps(text)}\n\n".encode())
                self.wfile.flush()
        except OSError:
            pass  # the page was closed

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy())
        self.end_headers()
        self.wfile.write(body)
