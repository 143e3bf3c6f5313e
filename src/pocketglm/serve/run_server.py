"""Runs the application until it is told to stop, and then stops without breaking off answers at once.

Enters: a model and settings. Leaves: nothing; returns after SIGTERM, raises `KeyboardInterrupt` after
SIGINT. From the signal on no new connection is taken; answers that run have the grace period to finish,
then they are ended with an error in their stream.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from pocketglm.errors import InputError
from pocketglm.generate.model import Model
from pocketglm.serve.app import create_app
from pocketglm.serve.async_model import AsyncModel
from pocketglm.serve.settings import BatchSettings, ServerSettings
from pocketglm.serve.slow_clients import timed_protocol

Ready = Callable[[str], None]
"""Called with the server's address, such as `http://127.0.0.1:8000`, once it answers."""

AFTER_CANCEL_S = 5
"""Seconds in which cancelled answers must have said so to their clients."""

KEEP_ALIVE_S = 30
SWITCH_INTERVAL_S = 0.0005
"""How long one thread may keep Python to itself while another waits. The default of 5 ms is as long as a
token of a small model: the batch's thread would wait for the web server's as long as it computes."""


class StoppableServer(uvicorn.Server):
    """uvicorn's server, with the grace period, and signals that end it instead of the process."""

    def __init__(self, config: uvicorn.Config, engine: AsyncModel, grace_s: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._grace_s = grace_s
        self.received: int | None = None

    def stop(self) -> None:
        """End the server; safe from any thread."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._engine.cancel_all)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True  # a second Ctrl-C waits for nothing
        self.received = self.received or number
        self.should_exit = True


def serve(model: Model, settings: ServerSettings, batch: BatchSettings, ready: Ready) -> None:
    """Serve `model` until a signal comes. Raises `InputError` where the address cannot be bound."""
    import sys

    listener = bind(settings.host, settings.port)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    engine = AsyncModel(model, batch)
    try:
        server = make_server(engine, create_app(engine, settings), settings)
        asyncio.run(_run(server, listener, settings, ready))
    finally:
        asyncio.run(engine.close())
        listener.close()
    if server.received == signal.SIGINT:
        raise KeyboardInterrupt


def make_server(engine: AsyncModel, app: FastAPI, settings: ServerSettings) -> StoppableServer:
    """A server that takes no longer than its grace period to stop."""
    config = uvicorn.Config(
        app,
        http=timed_protocol(settings.limits.header_s),  # h11 bounds the size of headers while they come
        h11_max_incomplete_event_size=settings.limits.header_bytes,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.grace_s) + AFTER_CANCEL_S,
    )
    return StoppableServer(config, engine, settings.grace_s)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the system choose one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host} port {port} ({error.strerror or error})",
            hint="another program may use the port; choose one with --port, 0 for any free one",
        ) from None


def address_of(listener: socket.socket) -> str:
    """The URL that the socket is reached at from this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


async def _run(
    server: StoppableServer, listener: socket.socket, settings: ServerSettings, ready: Ready
) -> None:
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready(address_of(listener))
    await task
