"""The outermost check: whom a request is meant for, and what every response says to browsers.

Enters: every request. Leaves: those with sane headers and a Host that is ours. A page of another site can
make a name of its own resolve to 127.0.0.1 and then call this server as if it were its own (DNS
rebinding); its name in the Host header gives it away.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocketglm.serve.http_errors import ApiError
from pocketglm.serve.metrics import Metrics
from pocketglm.serve.settings import ServerSettings

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::", ""})

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class HostGuard:
    """An ASGI middleware; also counts responses, since it sees them all."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, endpoints: Iterable[str]
    ) -> None:
        self._app = app
        self._header_bytes = settings.limits.header_bytes
        self._hosts = allowed_hosts(settings)
        self._any_address = settings.host in EVERYWHERE
        self._metrics = metrics
        self._endpoints = frozenset(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        endpoint = scope["path"] if scope["path"] in self._endpoints else "other"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.responded(endpoint, message["status"])
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                message["headers"] = headers.raw
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else refusal.response()
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if sum(len(name) + len(value) for name, value in headers) > self._header_bytes:
            return ApiError(431, f"the headers are larger than {self._header_bytes} bytes")
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self.knows(hosts[0].decode("latin-1")):
            shown = hosts[0].decode("latin-1")[:80] if hosts else ""
            return ApiError(
                421,
                f"this server does not answer for the host {shown!r}; allow it with --allow-host",
                code="host_not_allowed",
            )
        return None

    def knows(self, host: str) -> bool:
        """Whether a Host header (name and perhaps port) is ours.

        A server that listens everywhere answers for every address: an attacker's page has a name, because
        with an address it would have to come from there.
        """
        name = host_name(host)
        if name in self._hosts or name.endswith(".localhost"):
            return True
        return self._any_address and is_address(name)


def allowed_hosts(settings: ServerSettings) -> frozenset[str]:
    """Names that a Host header may have."""
    bound = {settings.host.lower()} - EVERYWHERE
    return LOCAL_NAMES | bound | {host_name(name) for name in settings.allowed_hosts}


def host_name(host: str) -> str:
    """The name in `name:port` or `[address]:port`, in lower case and without a last dot."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") > 1:
        return host
    return host.partition(":")[0].removesuffix(".")


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    import ipaddress

    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
