"""A real server for the tests: uvicorn in a thread of its own, on a free port of this machine.

Enters: a package and settings. Leaves: its address, and the parts inside it to look at.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pocketglm.generate.model import Model, load
from pocketglm.serve.app import create_app
from pocketglm.serve.async_model import AsyncModel
from pocketglm.serve.run_server import address_of, bind, make_server
from pocketglm.serve.settings import BatchSettings, ServerSettings
from pocketglm.serve.web_files import WebFile
from serve.event_loops import run

NAME = "tiny"


@dataclass
class Running:
    """A server that answers at `url`."""

    url: str
    engine: AsyncModel
    client: httpx.Client

    @property
    def model(self) -> Model:
        return self.engine.model

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def chat(self, text: str = "Hello", **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", messages=[{"role": "user", "content": text}], **body)


@contextmanager
def running(
    package: Path,
    *,
    engine: str | None = "reference",
    batch: BatchSettings | None = None,
    web_files: dict[str, WebFile] | None = None,
    load_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Serve a package until the block ends."""
    own = ServerSettings(**{"model_name": NAME, "port": 0, "grace_s": 1.0, **settings})
    with load(package, engine, **(load_settings or {})) as model:
        asynchronous = AsyncModel(model, batch)
        listener = bind(own.host, own.port)
        server = make_server(asynchronous, create_app(asynchronous, own, web_files), own)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            url = address_of(listener)
            with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
                yield Running(url, asynchronous, client)
        finally:
            server.stop()
            thread.join()
            run(asynchronous.close())
            listener.close()
