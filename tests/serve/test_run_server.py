"""The command as users run it: it says where it is, stops as it is told, and finishes what it began."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serve.test_api import CHAT, ENDLESS, HELLO


@contextmanager
def command(package: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `pocketglm serve` and its address."""
    line = [sys.executable, "-W", "error", "-m", "pocketglm", "serve", str(package), "--port", "0", *options]
    process = subprocess.Popen([*line, "--engine", "reference"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        page, api = process.stderr.readline(), process.stderr.readline()
        match = re.fullmatch(r"page: (http://127\.0\.0\.1:\d+)/\n", page)
        assert match, page + api + process.stderr.read()
        assert api == f"API:  {match[1]}/v1\n"
        yield process, match[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals(causal_path: Path, number: int, code: int) -> None:
    with command(causal_path, "--model-name", "mine") as (process, url):
        models = httpx.get(f"{url}/v1/models", trust_env=False).json()
        assert [card["id"] for card in models["data"]] == ["mine"]
        process.send_signal(number)
        assert process.wait(30) == code


def test_answers_end_well_when_the_server_stops(causal_path: Path) -> None:
    body = {"messages": HELLO, "stream": True, **ENDLESS}
    with (
        command(causal_path, "--grace", "0.5") as (process, url),
        httpx.stream("POST", f"{url}{CHAT}", json=body, timeout=60, trust_env=False) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        last = [line for line in lines if line][-2:]
        assert "shutting down" in last[0]
        assert last[1] == "data: [DONE]"
        assert process.wait(30) == 0


def test_a_port_that_is_taken(causal_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = [sys.executable, "-m", "pocketglm", "serve", str(causal_path), "--port", str(port)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 2
        assert f"cannot listen at 127.0.0.1 port {port}" in done.stderr
        assert "hint: " in done.stderr


def test_importing_pocketglm_needs_no_web_framework() -> None:
    program = (
        "import sys, pocketglm; print([m for m in ('fastapi', 'uvicorn', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
