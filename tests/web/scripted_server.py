"""A server whose answers are scripted, for output that no well-behaved model writes.

It speaks the page's part of the real server's interface, over the same page files and policy. The last
message chooses the answer: `script:NAME` from the given scripts; anything else is answered in words.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pocketglm.serve.host_guard import CONTENT_SECURITY_POLICY
from pocketglm.serve.web_files import read_web_files

# What one piece of a stream is: text to be wrapped as a chunk, or raw bytes that go out as they are.
Script = list[str | bytes]

STATUS: dict[str, Any] = {
    "model": "scripted-135m",
    "context_length": 2048,
    "engine": "native",
    "threads": 2,
    "blocks": [
        {"index": index, "engine": "torch" if index < 6 else "native", "place": place}
        for index, place in enumerate(["gpu"] * 6 + ["ram"] * 18 + ["disk"] * 6)
    ],
    "memory": {"rss_bytes": 221e6, "weight_bytes": 104e6, "cache_bytes": 47e6, "buffer_bytes": 3e6},
    "requests": {"running": 0, "waiting": 0, "limit": 64},
    "sampling_defaults": {"temperature": 0.8, "top_p": 0.9},
    "template": True,
    "version": "0.0.0",
}


class ScriptedServer:
    """Runs until `close`. `requests` are the chat requests it got, `cancelled` how many were cut off."""

    def __init__(
        self, scripts: Mapping[str, Script], api_key: str | None = None, delay_s: float = 0.01
    ) -> None:
        self.scripts, self.api_key, self.delay_s = scripts, api_key, delay_s
        self.requests: list[dict[str, Any]] = []
        self.cancelled = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def script_for(self, request: dict[str, Any]) -> Script:
        """The pieces of the answer to this request."""
        asked = request["messages"][-1]["content"]
        name = asked.removeprefix("script:")
        words = f"You said {len(request['messages'])} things, the last being “{asked}”. Good!".split(" ")
        return self.scripts[name] if name in self.scripts else [f"{word} " for word in words]


class _Handler(BaseHTTPRequestHandler):
    served: ScriptedServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet: the test's output is not a log."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        page = read_web_files().get(path)
        if path == "/v1/pocketglm/status":
            self._json(200, STATUS) if self._allowed() else self._refuse()
        elif page is None:
            self._json(404, {"error": {"message": "no such page"}})
        else:
            self._send(200, page.media_type, page.data)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            self._refuse()
            return
        self.served.requests.append(request)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        try:
            for piece in _stream(self.served.script_for(request)):
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(self.served.delay_s)
        except OSError:
            self.served.cancelled += 1

    def _allowed(self) -> bool:
        key = self.served.api_key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def _refuse(self) -> None:
        self._json(401, {"error": {"message": "Wrong API key"}})

    def _json(self, code: int, value: Any) -> None:
        self._send(code, "application/json", json.dumps(value).encode())

    def _send(self, code: int, media_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.end_headers()
        self.wfile.write(body)


def _stream(script: Script) -> Iterator[bytes]:
    count = 0
    for piece in script:
        if isinstance(piece, bytes):
            yield piece
        else:
            count += 1
            yield event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
    yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 20, "completion_tokens": count, "total_tokens": 20 + count}
    timings = {"prompt_tokens": 20, "reused_tokens": 12, "prefill_s": 0.1, "decode_s": 1.0}
    rates = {"prompt_tokens_per_second": 200.0, "tokens_per_second": float(count)}
    yield event({"choices": [], "usage": usage, "timings": {**timings, **rates}})
    yield b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
