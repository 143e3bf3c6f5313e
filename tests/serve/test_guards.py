"""What is refused before a request reaches the API."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketglm.serve.host_guard import CONTENT_SECURITY_POLICY, allowed_hosts, host_name
from pocketglm.serve.request_guard import json_depth
from pocketglm.serve.settings import RequestLimits, ServerSettings
from serve.running import Running, running

LIMITS = RequestLimits(body_bytes=20_000, header_bytes=8192, json_depth=8, body_s=0.5, header_s=0.5)
KEY = "secret-key"
SITE = "https://site.example"
BODY = {"prompt": "Hi", "max_tokens": 1}


@pytest.fixture(scope="module")
def guarded(causal_path: Path) -> Iterator[Running]:
    with running(
        causal_path,
        api_key=KEY,
        limits=LIMITS,
        cors_origins=(SITE,),
        allowed_hosts=("models.example",),
    ) as started:
        yield started


def ask(server: Running, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    own = {"Authorization": f"Bearer {KEY}", **(headers or {})}
    options = options or {"json": BODY}
    return server.client.post("/v1/completions", headers=own, **options)


def refused(response: httpx.Response, status: int) -> str:
    """The message of an error, which has OpenAI's shape whatever went wrong."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return str(response.json()["error"]["message"])


def test_a_key_is_needed(guarded: Running) -> None:
    assert ask(guarded).status_code == 200
    for given_key in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe4"):
        response = ask(guarded, {"Authorization": given_key.encode("latin-1")})  # type: ignore[dict-item]
        assert "API key" in refused(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        refused(guarded.client.get(path), 401)
    for path in ("/", "/health"):
        assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:80", "a.localhost", "LOCALHOST.", "models.example:1"]
)
def test_our_own_hosts(guarded: Running, host: str) -> None:
    assert guarded.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhostx", ""])
def test_other_hosts_are_refused(guarded: Running, host: str) -> None:
    assert "does not answer for the host" in refused(
        guarded.client.get("/health", headers={"Host": host}), 421
    )


def test_hosts_of_a_server_that_listens_everywhere(causal_path: Path) -> None:
    with running(causal_path, host="0.0.0.0") as server:
        assert server.client.get("/health", headers={"Host": "10.0.0.1:5"}).status_code == 200
        assert server.client.get("/health", headers={"Host": "[fe80::1]:5"}).status_code == 200
        refused(server.client.get("/health", headers={"Host": "evil.example"}), 421)


def test_host_names() -> None:
    names = {"A:80": "a", "[::1]:80": "::1", "::1": "::1", "a.": "a", "a.:80": "a"}
    assert {host: host_name(host) for host in names} == names
    assert "10.1.2.3" in allowed_hosts(ServerSettings("m", host="10.1.2.3"))


def test_pages_of_other_sites_cause_no_work(guarded: Running) -> None:
    for origin in ("https://evil.example", "null"):
        assert "may not call" in refused(ask(guarded, {"Origin": origin}), 403)
    allowed = ask(guarded, {"Origin": SITE})
    assert allowed.headers["access-control-allow-origin"] == SITE
    assert ask(guarded, {"Origin": guarded.url}).status_code == 200


def test_preflights(guarded: Running, server: Running) -> None:
    asks = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    assert guarded.client.options("/v1/completions", headers=asks).status_code == 200
    assert (
        guarded.client.options("/v1/completions", headers={**asks, "Origin": "https://b.example"}).status_code
        == 400
    )
    refused(server.client.options("/v1/completions", headers=asks), 405)
    assert "access-control-allow-origin" not in server.client.get("/health", headers={"Origin": SITE}).headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_is_json_and_says_so(guarded: Running, kind: str) -> None:
    response = ask(guarded, {"Content-Type": kind}, content=json.dumps(BODY))
    assert "must be application/json" in refused(response, 415)


def test_large_bodies(guarded: Running) -> None:
    large = json.dumps({"prompt": "x" * LIMITS.body_bytes})
    assert "larger than 20000" in refused(ask(guarded, json=json.loads(large)), 413)

    def in_chunks() -> Iterator[bytes]:
        yield from (large[i : i + 1000].encode() for i in range(0, len(large), 1000))

    try:
        response = ask(guarded, {"Content-Type": "application/json"}, content=in_chunks())
    except httpx.WriteError:  # the server closed the connection while the client was still sending
        return
    refused(response, 413)


def test_large_headers(guarded: Running) -> None:
    response = guarded.client.get("/health", headers={"X-Filler": "x" * 7900, "X-More": "y" * 600})
    assert response.status_code in (400, 431)  # the protocol's own limit may come first


def test_deep_bodies(guarded: Running) -> None:
    deep = json.dumps({"prompt": "x"})[:-1] + ', "stop": ' + "[" * 5000 + "]" * 5000 + "}"
    response = ask(guarded, {"Content-Type": "application/json"}, content=deep)
    assert "nested deeper" in refused(response, 400)


def test_a_body_that_does_not_come(guarded: Running) -> None:
    with connected(guarded) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def drip(connection: socket.socket, piece: bytes) -> bytes:
    """What comes back, to the end of the connection, while bytes go out one by one for ever."""
    received = bytearray()
    connection.settimeout(0.05)
    while True:
        try:
            connection.sendall(piece)
            data = connection.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            return bytes(received)
        if not data:
            return bytes(received)
        received += data


def test_headers_that_come_bit_by_bit(guarded: Running) -> None:
    with connected(guarded) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert drip(connection, b"x").startswith(b"HTTP/1.1 408 ")
    with connected(guarded) as connection:  # after a request that was answered
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert b"HTTP/1.1 408 " in drip(connection, b"x")


def test_a_connection_that_says_nothing(guarded: Running) -> None:
    with connected(guarded) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_the_rest_of_a_body_that_was_refused(guarded: Running) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n"
    with connected(guarded) as connection:
        connection.sendall(head)
        assert drip(connection, b"x").startswith(b"HTTP/1.1 401 ")


def test_what_every_response_says_to_browsers(guarded: Running) -> None:
    for response in (guarded.client.get("/"), guarded.client.get("/nothing"), ask(guarded)):
        assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "server" not in response.headers


JSON = st.recursive(
    st.text(alphabet='a"\\[]{}é\n') | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='"\\{[b'), inner, max_size=3)
    ),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.integers(0, 5), st.booleans())
def test_depth_is_that_of_the_parsed_value(value: object, enough: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert (json_depth(body, enough) > enough) == (depth_of(value) > enough)
