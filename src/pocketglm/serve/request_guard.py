"""The checks before a request is read as one of the API: key, origin, kind and size of its body.

Enters: requests for a known host. Leaves: those that may be served, their bodies read and bounded.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocketglm.serve.http_errors import ApiError
from pocketglm.serve.settings import RequestLimits, ServerSettings

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')


class RequestGuard:
    """An ASGI middleware. `open_paths` need no key: the page's own files and `/health`."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, open_paths: Iterable[str]) -> None:
        self._app = app
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._origins = frozenset(settings.cors_origins)
        self._limits = settings.limits
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._check_key(scope["path"], headers)
            if scope["method"] in WITH_BODY:
                self._check_origin(headers)
                check_media_type(headers)
                receive = await self._read(headers, receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except ConnectionResetError:  # the client left while it sent its request
            return
        await self._app(scope, receive, send)

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._key is None or path in self._open_paths:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        matches = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._key)
        if scheme.lower() != "bearer" or not matches:
            message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _check_origin(self, headers: Headers) -> None:
        """A browser names the page's origin; only our own page and allowed ones may cause work."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return
        if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise ApiError(
                403,
                f"pages of {origin[:80]} may not call this server; allow them with --cors-origin",
                code="origin_not_allowed",
            )

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """Read and check the body; the application reads it again from what is returned."""
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limits.body_bytes:
            raise _too_large(self._limits)
        try:
            body = await asyncio.wait_for(self._collect(receive), self._limits.body_s)
        except asyncio.TimeoutError:
            raise ApiError(408, f"the body did not come within {self._limits.body_s:g} s") from None
        if json_depth(body, self._limits.json_depth) > self._limits.json_depth:
            raise ApiError(400, f"the body is nested deeper than {self._limits.json_depth} levels")
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    async def _collect(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body_bytes:
                raise _too_large(self._limits)
            if not message.get("more_body", False):
                return b"".join(parts)


def check_media_type(headers: Headers) -> None:
    """Bodies are JSON and say so. Other sites' pages cannot send that without asking first (CORS)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the body must be application/json, found {kind[:80] or 'no Content-Type'}")


def json_depth(body: bytes, enough: int) -> int:
    """How deeply arrays and objects of a JSON text are nested; counts no further than past `enough`."""
    if body.count(b"[") + body.count(b"{") <= enough:
        return 0
    # Escapes go first, in pairs from the left, so that every quote left begins or ends a string
    structure = _ESCAPE.sub(b"", body).translate(None, _NOT_STRUCTURE)
    depth = 0
    for byte in _STRING.sub(b"", structure):
        if byte in b"[{":
            depth += 1
            if depth > enough:
                break
        else:
            depth -= 1
    return depth if depth > enough else 0


def _too_large(limits: RequestLimits) -> ApiError:
    return ApiError(
        413, f"the body is larger than {limits.body_bytes} bytes", headers={"Connection": "close"}
    )
