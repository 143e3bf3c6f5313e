"""Limits of the batch and of the server, checked once.

Enters: what a program or the command line asks for. Leaves: frozen settings, or `InputError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pocketglm.errors import InputError


@dataclass(frozen=True)
class BatchSettings:
    """How much is computed together.

    `running` answers at most are in the batch, `waiting` more may queue; what comes beyond them is
    refused. `cache_bytes` bounds the KV caches of all of them together with the kept prefixes (None: a
    quarter of the memory that is free at the start, and at least one full context).
    `decode_step_s` is how long a step should take while answers stream, `prefill_step_s` while none
    does: a long prompt is cut into pieces that take about so long. Tokens are handed over at most every
    `deliver_s`, several at a time where they come faster, except an answer's first and last.
    """

    running: int = 16
    waiting: int = 64
    cache_bytes: int | None = None
    decode_step_s: float = 0.2
    prefill_step_s: float = 1.0
    deliver_s: float = 0.05

    def __post_init__(self) -> None:
        _at_least(self, {"running": 1, "waiting": 0, "deliver_s": 0})
        if self.cache_bytes is not None and self.cache_bytes < 1:
            raise InputError(f"cache_bytes is {self.cache_bytes}, expected 1 or more")
        for name in ("decode_step_s", "prefill_step_s"):
            if not 0 < getattr(self, name) < 60:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 to 60 seconds")


@dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for. Sizes are bytes, times seconds.

    A client has `header_s` for the headers of a request, `body_s` for its body, and `send_s` to take each
    piece of the answer. A stream in which nothing happens says so every `silence_s`.
    """

    body_bytes: int = 4 << 20
    header_bytes: int = 32 << 10
    json_depth: int = 64
    choices: int = 16
    prompts: int = 64
    stops: int = 16
    stop_characters: int = 256
    logit_biases: int = 1024
    tools: int = 128
    messages: int = 2048
    embedding_inputs: int = 256
    request_s: float = 1800.0
    header_s: float = 20.0
    body_s: float = 30.0
    send_s: float = 60.0
    silence_s: float = 10.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) <= 0:
                raise InputError(f"{entry.name} is {getattr(self, entry.name)}, expected more than 0")


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens and whom it answers.

    `api_key` None asks for no key. `allowed_hosts` are names beside `localhost` and the bound host that
    a request's Host header may have; `cors_origins` are web origins whose pages may call the API.
    """

    model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    grace_s: float = 10.0
    limits: RequestLimits = RequestLimits()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port is {self.port}, expected 0 to 65535")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise InputError("the API key must be ASCII characters, and not only blanks")
        if not self.model_name:
            raise InputError("the model needs a name")
        if self.grace_s < 0:
            raise InputError(f"grace_s is {self.grace_s}, expected 0 or more seconds")
        for origin in self.cors_origins:
            if "://" not in origin or origin.endswith("/"):
                raise InputError(
                    f"the CORS origin {origin!r} is no origin", hint="an origin is like https://example.org"
                )


def _at_least(settings: object, least: Mapping[str, int]) -> None:
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"{name} is {getattr(settings, name)}, expected {value} or more")
