"""HTTP/1.1 for clients that may be slow on purpose: a request whose headers do not come ends its connection.

Enters: a time limit. Leaves: a protocol for uvicorn. uvicorn's own timer knows connections that rest between
two requests; the first byte of a request switches it off, and a new connection has none. (Bodies have a
limit of their own, in `request_guard.py`.)
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class TimedProtocol(H11Protocol):
    """`client_s` is how long the server waits for a client alone: for a request's headers, or for the rest
    of a body that was answered before it was complete."""

    client_s: ClassVar[float]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the timer where the client is to send; what it sends bit by bit does not start it anew."""
        answered = self.cycle is not None and self.cycle.response_complete
        if self.conn.their_state is h11.IDLE or (answered and self.conn.their_state is h11.SEND_BODY):
            self._deadline = self._deadline or self.loop.call_later(self.client_s, self._give_up)
        else:
            self._stop()

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.conn.our_state is h11.IDLE:
            self.transport.write(TIMEOUT)
        self.transport.close()


def timed_protocol(seconds: float) -> type[TimedProtocol]:
    """The protocol with a time limit."""
    return type("TimedProtocol", (TimedProtocol,), {"client_s": seconds})
