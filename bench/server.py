"""What the server costs and how it bears load, over HTTP on this machine.

    python bench/server.py smollm2-int4                       speed: one client, eight clients, shared prefix
    python bench/server.py smollm2-int4 --load 60             64 clients for 60 s, leaving at random

Enters: a package. Leaves: a table on standard error and one JSON object on standard output. The server is
a process of its own, the clients are coroutines of this one; since they share the server's cores, they only
note what comes, and read it when an answer is over. Rates are medians over rounds; a rate counts the tokens
after the first, from the arrival of the first to that of the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any

CLIENTS_TOGETHER = 8
PREFIX_TOKENS = 1000
LEAST_COMMON = 0.7


@dataclass
class Stream:
    """One streamed answer, as its client saw it."""

    status: int = 0
    asked: float = 0.0
    first: float = 0.0
    last: float = 0.0
    texts: int = 0
    tokens: int = 0
    done: bool = False
    left: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return (self.tokens - 1) / (self.last - self.first)


class Client(asyncio.Protocol):
    """One request: notes what comes and when, and reads it once all of it is there.

    The clients share the server's cores, where clients elsewhere would take none: a browser's library, or
    reading every event as it comes, would cost more than the server does.
    """

    def __init__(self, request: bytes, leave_after: int | None = None) -> None:
        self._request = request
        self._leave_after = leave_after
        self._transport: asyncio.Transport | None = None
        self.received: list[tuple[float, bytes]] = []
        self.left = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received.append((time.perf_counter(), data))
        if self._leave_after is not None and self._texts() >= self._leave_after:
            self.left = True
            self._close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _texts(self) -> int:
        return sum(data.count(b'"text":"') - data.count(b'"text":""') for _, data in self.received)

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


async def exchange(port: int, head: str, body: bytes = b"", leave_after: int | None = None) -> Client:
    """Send a request and wait until the server closes the connection."""
    request = f"{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    request += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: Client(request.encode() + body, leave_after), "127.0.0.1", port
    )
    await client.over
    return client


async def get(port: int, path: str) -> str:
    client = await exchange(port, f"GET {path}")
    return b"".join(data for _, data in client.received).partition(b"\r\n\r\n")[2].decode()


async def stream(port: int, path: str, body: dict[str, Any], leave_after: int | None = None) -> Stream:
    """Ask for an answer; `leave_after` that many texts, hang up."""
    found = Stream(asked=time.perf_counter())
    data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    try:
        client = await exchange(port, f"POST {path}", data, leave_after)
    except ConnectionError as error:
        found.problems.append(repr(error))
        return found
    found.left = client.left
    try:
        read_response(client.received, found)
    except (ValueError, IndexError) as error:
        if not found.left:  # in the middle of something
            found.problems.append(repr(error))
    return found


def read_response(received: list[tuple[float, bytes]], found: Stream) -> None:
    """The head, then chunks of the transfer encoding: each is whole events, as this server sends them."""
    data = b"".join(part for _, part in received)
    ends = list(accumulate(len(part) for _, part in received))
    head, _, _ = data.partition(b"\r\n\r\n")
    found.status = int(head.split()[1])
    if found.status != 200:
        if found.status == 429 and b"retry-after" not in head.lower():
            found.problems.append("a 429 without Retry-After")
        return
    place = len(head) + 4
    while True:
        end = data.index(b"\r\n", place)
        size, start = int(data[place:end], 16), end + 2
        place = start + size + 2
        if data[place - 2 : place] != b"\r\n":
            raise ValueError("a chunk is not whole")
        if size == 0:
            return
        came = received[bisect_left(ends, place)][0]
        read_events(data[start : start + size], found, came)


def read_events(data: bytes, found: Stream, came: float) -> None:
    for event in data.strip().split(b"\n\n"):
        if event.startswith(b":"):
            continue  # a comment
        if found.done or not event.startswith(b"data: "):
            found.problems.append(f"a wrong event: {event[:60]!r}")
        elif event == b"data: [DONE]":
            found.done = True
        else:
            count(json.loads(event[6:]), found, came)


def count(chunk: dict[str, Any], found: Stream, came: float) -> None:
    if "error" in chunk:
        found.problems.append(chunk["error"]["message"])
        return
    if usage := chunk.get("usage"):
        found.tokens = usage["completion_tokens"]
    for choice in chunk["choices"]:
        if choice.get("text"):
            found.texts += 1
            found.first = found.first or came
            found.last = came


@asynccontextmanager
async def server(package: Path, arguments: argparse.Namespace) -> AsyncIterator[tuple[int, int]]:
    """The port and the process id of a server."""
    line = [sys.executable, "-m", "pocketglm", "serve", str(package), "--port", "0"]
    if arguments.threads:
        line += ["--threads", str(arguments.threads)]
    if arguments.lookup is not None:
        line += ["--lookup", str(arguments.lookup)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = [process.stderr.readline(), process.stderr.readline()]
        match = re.search(r":(\d+)/", "".join(lines))
        if match is None:
            raise SystemExit("".join(lines) + process.stderr.read())
        yield int(match[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def prompts(model: Any, length: int, count: int, seed: int) -> list[list[int]]:
    """Pieces of a text, at different places for every seed."""
    text = files("pocketglm.generate").joinpath("bench_text.txt").read_text("utf-8")
    source = model.tokenizer.encode(text)
    starts = random.Random(seed).sample(range(len(source)), count)
    return [[source[(start + i) % len(source)] for i in range(length)] for start in starts]


async def speed(package: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One client against the engine alone, eight against one, a shared prefix against none.

    The engine alone and the server take turns, and ratios are medians of those within a round, so that a
    machine that is slower for a while slows both.
    """
    import pocketglm

    body = {"max_tokens": arguments.new_tokens, "ignore_eos": True, "temperature": 0}
    rounds: list[dict[str, float]] = []
    with pocketglm.load(package, threads=arguments.threads, lookup=arguments.lookup) as model:
        async with server(package, arguments) as (port, _):
            for seed in range(arguments.rounds):
                one = prompts(model, 32, 1, seed)[0]
                own = engine_rate(model, one, arguments.new_tokens)
                single = (await stream(port, "/v1/completions", {**body, "prompt": one})).rate
                several, prompts_too = await together_rates(
                    port, body, prompts(model, 32, CLIENTS_TOGETHER, 100 + seed)
                )
                first, second = await first_tokens(port, *prompts(model, PREFIX_TOKENS, 3, 200 + seed))
                rounds.append(
                    {
                        "engine_tps": own,
                        "one_client_tps": single,
                        "eight_clients_tps": several,
                        "eight_with_prompts_tps": prompts_too,
                        "first_ttft_s": first,
                        "shared_prefix_ttft_s": second,
                        "one_client_of_engine": single / own,
                        "eight_of_one": several / single,
                        "shared_of_first": second / first,
                    }
                )
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {**medians, "rounds": rounds}


def engine_rate(model: Any, prompt: list[int], new_tokens: int) -> float:
    """Tokens a second of the engine in this process, without a server."""
    settings = model.settings(max_new_tokens=new_tokens, ignore_eos=True, temperature=0.0)
    with model.session() as session:
        return float(model.answer(prompt, settings, session).finish().statistics.decode_tps)


async def together_rates(port: int, body: dict[str, Any], inputs: list[list[int]]) -> tuple[float, float]:
    """Tokens a second of clients that ask at once: the sum of their rates, each as one client's, and the rate
    from the first token of all to the last, which counts the time of the later ones' prompts, too."""
    streams = await asyncio.gather(
        *(stream(port, "/v1/completions", {**body, "prompt": prompt}) for prompt in inputs)
    )
    began, ended = min(s.first for s in streams), max(s.last for s in streams)
    common = min(s.last for s in streams) - max(s.first for s in streams)
    if common < LEAST_COMMON * (ended - began):  # rates of streams one after the other have no sum
        raise SystemExit(f"the streams ran together for {common:.2f} s of {ended - began:.2f} s only")
    tokens = sum(stream.tokens - 1 for stream in streams)
    return sum(stream.rate for stream in streams), tokens / (ended - began)


async def first_tokens(port: int, prefix: list[int], one: list[int], two: list[int]) -> tuple[float, float]:
    """Seconds to the first token of two prompts that begin with the same 1000 tokens."""
    times = []
    for ending in (one[:16], two[:16]):
        body = {"prompt": [*prefix, *ending], "max_tokens": 2, "ignore_eos": True, "temperature": 0}
        answer = await stream(port, "/v1/completions", body)
        times.append(answer.first - answer.asked)
    return times[0], times[1]


async def load(package: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Many clients that come and go; then everything must be as at the start."""
    async with server(package, arguments) as (port, pid):
        streams: list[Stream] = []
        await visits(port, 3.0, arguments.clients, streams)  # so that what is made once is made
        streams.clear()
        before = resident(pid)
        await visits(port, arguments.load, arguments.clients, streams)
        await asyncio.sleep(1)
        status = json.loads(await get(port, "/v1/pocketglm/status"))
        return {
            "clients": arguments.clients,
            "seconds": arguments.load,
            "requests": len(streams),
            "finished": sum(s.done for s in streams),
            "left": sum(s.left for s in streams),
            "refused_429": sum(s.status == 429 for s in streams),
            "other_statuses": sorted({s.status for s in streams} - {200, 429}),
            "malformed": sorted({p for s in streams for p in s.problems}),
            "unfinished": sum(s.status == 200 and not s.done and not s.left for s in streams),
            "tokens_per_s": sum(s.texts for s in streams) / arguments.load,
            "running_after": status["requests"]["running"],
            "waiting_after": status["requests"]["waiting"],
            "rss_before": before,
            "rss_after": resident(pid),
            "descriptors_after": len(os.listdir(f"/proc/{pid}/fd")),
        }


async def visits(port: int, seconds: float, clients: int, streams: list[Stream]) -> None:
    """`clients` at once, each with request after request until the time is over."""
    end = time.perf_counter() + seconds

    async def visitor(seed: int) -> None:
        rng = random.Random(seed)
        while time.perf_counter() < end:
            prompt = f"{'The weather of the sea. ' * rng.randint(0, 40)}Number {rng.random()}:"
            body = {"prompt": prompt, "max_tokens": rng.randint(1, 48), "temperature": rng.choice([0, 1])}
            leave = rng.randint(0, 8) if rng.random() < 0.3 else None
            streams.append(await stream(port, "/v1/completions", body, leave))
            if streams[-1].status == 429:
                await asyncio.sleep(rng.random())

    await asyncio.gather(*(visitor(seed) for seed in range(clients)))


def resident(pid: int) -> int:
    """Bytes of a process in RAM that belong to no file."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--load", type=float, help="seconds of load instead of the speed")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--lookup", type=int, default=0, help="guesses, which repeating texts profit from")
    arguments = parser.parse_args()
    result = asyncio.run((load if arguments.load else speed)(arguments.package, arguments))
    for name, value in result.items():
        shown = f"{value:.3f}" if isinstance(value, float) else value
        if name != "rounds":
            print(f"{name:22} {shown}", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
