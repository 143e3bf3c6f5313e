"""What the phone's engine needs, without a phone.

    python bench/phone.py memory chatglm-6b-int4        private memory at a full context, and with a limit
    python bench/phone.py instructions chatglm-6b-int4  instructions a token, and what a phone may make of it

Enters: a package and the engine's executable (`make engine`; for `instructions` one for arm64, out of the
app: `unzip build/pocketglm.apk "lib/*"`, and `chmod +x`). Leaves: one JSON object. The memory is
measured on this machine with the phone's code. Instructions are counted under qemu; the rates made of them
are estimates, and no phone has confirmed them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketglm.cli.sizes import parse_size
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import read_manifest

ROOT = Path(__file__).parents[1]
PLUGIN = Path(__file__).with_name("count_instructions.c")
SAMPLE_S = 0.02
FIRST_TOKEN, LAST_TOKEN = 2, 4
"""Tokens of the answers that are compared; only what the longer one has more is counted."""


@dataclass(frozen=True)
class Phone:
    """Cores that compute: (number, clock in GHz, instructions a cycle). `bandwidth` is the memory's
    published one in GB/s, of which a program reads `share`."""

    name: str
    cores: tuple[tuple[str, int, float, float], ...]
    bandwidth: float
    share: float

    @property
    def instructions_per_s(self) -> float:
        return sum(count * clock * ipc * 1e9 for _, count, clock, ipc in self.cores)


XIAOMI_12 = Phone(
    "Xiaomi 12 (Snapdragon 8 Gen 1)",
    (("Cortex-X2", 1, 3.0, 2.0), ("Cortex-A710", 3, 2.5, 1.2)),
    bandwidth=51.2,  # LPDDR5-6400, 64 bits
    share=0.5,
)
"""Clocks and bandwidth are the makers'. Instructions a cycle are assumed, well below what the vector units
of these cores take (4 and 2 a cycle): loads miss caches, and a phone gets warm. So is the share."""


class Engine:
    """The executable as a child process."""

    def __init__(self, command: Sequence[str], errors: int | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        self.event("ready")

    def send(self, **request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def event(self, name: str) -> dict[str, Any]:
        """The next event of this name. Ends the program where an error comes instead."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "error":
                sys.exit(f"the engine says: {event['message']}")
            if event["event"] == name:
                return event
        sys.exit(f"the engine ended before it said {name}")

    def end(self) -> str:
        """What it wrote to standard error."""
        self.send(command="quit")
        _, errors = self.process.communicate()
        return errors or ""


class PrivateMemory:
    """Watches the anonymous memory of a process. `peak` and `peak_resident` are bytes."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> int:
        """Stops; resident memory at its peak, mapped files included."""
        self._over.set()
        self._thread.join()
        return self._field("VmHWM")

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.peak = max(self.peak, self._field("RssAnon"))

    def _field(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", self._status.read_text())
        return int(found[1]) * 1024 if found else 0


def prompt_of(package: Path, tokens: int) -> list[int]:
    """Any tokens, with the marks that ChatGLM-6B's prompt ends with."""
    spec = read_manifest(package).spec
    prefix = spec.prefix_tokens
    marks = [] if prefix is None else [prefix.gmask, prefix.sop]
    return [5 + index % 20000 % (spec.vocab_size // 2) for index in range(tokens - len(marks))] + marks


def measure_memory(arguments: argparse.Namespace, limit: int | None) -> dict[str, Any]:
    """A prompt that leaves room for 8 tokens of the context, and the 8 tokens."""
    engine = Engine([str(arguments.engine)])
    memory = PrivateMemory(engine.process.pid)
    request = {"memory": limit} if limit else {}
    context = arguments.context
    engine.send(
        command="load",
        package=str(arguments.package),
        kv=arguments.kv,
        context=context,
        threads=arguments.threads,
        **request,
    )
    loaded = engine.event("loaded")
    prompt = prompt_of(arguments.package, context - 8)
    engine.send(command="generate", id="a", tokens=prompt, max_tokens=8, ignore_end=True)
    done = engine.event("done")
    engine.send(command="stats")
    stats = engine.event("stats")
    resident = memory.close()
    engine.end()
    return {
        "limit_bytes": limit,
        "peak_private_bytes": max(memory.peak, stats["anonymous_bytes"]),
        "peak_resident_bytes": resident,
        "cache_bytes": stats["cache_bytes"],
        "buffer_bytes": stats["buffer_bytes"],
        "weight_bytes": loaded["weight_bytes"],
        "streamed_bytes": loaded["streamed_bytes"],
        "prompt_tokens": done["prompt_tokens"],
        "generated_tokens": done["generated_tokens"],
    }


def count(arguments: argparse.Namespace, plugin: Path, cpu: str, tokens: int) -> int:
    """Instructions of a whole run that makes `tokens` tokens."""
    emulator = ["qemu-aarch64", "-plugin", str(plugin), "-cpu", cpu, str(arguments.engine)]
    engine = Engine(emulator, errors=subprocess.PIPE)
    engine.send(command="load", package=str(arguments.package), kv=arguments.kv, context=256, threads=1)
    engine.event("loaded")
    prompt = prompt_of(arguments.package, 8)
    engine.send(command="generate", id="a", tokens=prompt, max_tokens=tokens, ignore_end=True)
    engine.event("done")
    found = re.search(r"instructions (\d+)", engine.end())
    if found is None:
        sys.exit("the emulator takes no plugins of version 1 (qemu 4.2 to 8)")
    return int(found[1])


def count_instructions(arguments: argparse.Namespace) -> dict[str, Any]:
    """Instructions that one more token takes, on each CPU, and the phone's rate by them."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "count.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", plugin, PLUGIN], check=True)
        found = {}
        for cpu in arguments.cpus.split(","):
            began = time.perf_counter()
            runs = [count(arguments, plugin, cpu, tokens) for tokens in (FIRST_TOKEN, LAST_TOKEN)]
            found[cpu] = (runs[1] - runs[0]) // (LAST_TOKEN - FIRST_TOKEN)
            print(f"{cpu}: {found[cpu]} in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    manifest = read_manifest(arguments.package)
    names = [*(block_file(index) for index in range(manifest.spec.num_blocks)), HEAD_FILE]
    weights = sum(manifest.files[name].size for name in names)
    return {
        "instructions_per_token": found,
        "bytes_per_token": weights,
        "estimate": {cpu: estimate(XIAOMI_12, instructions, weights) for cpu, instructions in found.items()},
    }


def estimate(phone: Phone, instructions: int, weights: int) -> dict[str, Any]:
    """Tokens a second by what limits them: instructions or bytes; the lesser one is the estimate."""
    by_instructions = phone.instructions_per_s / instructions
    by_bytes = phone.bandwidth * phone.share * 1e9 / weights
    return {
        "phone": phone.name,
        "by_instructions_tps": round(by_instructions, 2),
        "by_bytes_tps": round(by_bytes, 2),
        "tokens_per_s": round(min(by_instructions, by_bytes), 2),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("memory", "instructions"))
    parser.add_argument("package", type=Path)
    parser.add_argument("--engine", type=Path, default=ROOT / "build" / "engine" / "pocketglm-engine")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--kv", choices=("float16", "int8"), default="int8")
    parser.add_argument("--threads", type=int, default=4, help="as many as the phone has big cores")
    parser.add_argument("--memory", type=parse_size, help="a limit for the second run of `memory`, in bytes")
    parser.add_argument("--cpus", default="max,cortex-a76", help="for `instructions`: qemu's names")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.what == "instructions":
        report = count_instructions(arguments)
    else:
        limits = [None, arguments.memory] if arguments.memory else [None]
        report = {"runs": [measure_memory(arguments, limit) for limit in limits]}
    settings = {name: getattr(arguments, name) for name in ("what", "context", "kv", "threads")}
    print(json.dumps({"package": arguments.package.name, **settings, **report}, indent=2))


if __name__ == "__main__":
    main()
