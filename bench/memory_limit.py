"""A package under a memory limit: `python bench/memory_limit.py DIR [--memory 1.5GiB] [--hard 2GiB]`.

Runs the package in a process that the kernel kills beyond the hard limit, and measures in the same run
how fast the disk gives the same files, read past the page cache in order. Prints one JSON object: tokens
a second, the rate at which weights came from the disk, the disk's own rate, and peaks of memory.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import sys
import time
from pathlib import Path

from hard_limit import available, run_limited

from pocketglm.cli.sizes import parse_size
from pocketglm.generate.bench import bench_prompts, peak_rss_bytes
from pocketglm.generate.memory_budget import anonymous_bytes
from pocketglm.generate.model import load
from pocketglm.package.reader import read_manifest

READ_AT_ONCE = 8 << 20


def measure(path: Path, memory: int, prompt_tokens: int, new_tokens: int, threads: int) -> dict[str, object]:
    """The inner process: load, prefill, decode without prompt lookup, which would count its guesses."""
    began = time.perf_counter()
    with load(path, "native", threads=threads, memory=memory, lookup=0) as model, model.session() as session:
        load_s = time.perf_counter() - began
        (prompt,) = bench_prompts(model, prompt_tokens, 1)
        began = time.perf_counter()
        token = int(session.forward(prompt, last_only=True)[-1].argmax())
        prefill_s = time.perf_counter() - began
        steps = []
        for _ in range(new_tokens):
            began = time.perf_counter()
            token = int(session.forward([token], last_only=True)[-1].argmax())
            steps.append(time.perf_counter() - began)
        usage = model.stages[0].usage()  # type: ignore[attr-defined]
        return {
            "context": model.context,
            "load_s": round(load_s, 2),
            "prefill_tps": round(prompt_tokens / prefill_s, 2),
            "decode_tps": round(1 / statistics.median(steps), 3),
            "streamed_bytes_a_token": usage["streamed_bytes"],
            "stream_bytes_per_s": round(usage["streamed_bytes"] / statistics.median(steps)),
            "peak_rss_bytes": peak_rss_bytes(),
            "anonymous_bytes": anonymous_bytes(),
        }


def disk_rate(files: list[Path]) -> float:
    """Bytes a second, read past the page cache as the reader thread does: one read after the other, into
    huge pages."""
    buffer = mmap.mmap(-1, READ_AT_ONCE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    total, began = 0, time.perf_counter()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
        try:
            at = 0
            while count := os.preadv(descriptor, [buffer], at):
                at += count
                if count < READ_AT_ONCE:
                    break
            total += at
        finally:
            os.close(descriptor)
    return total / (time.perf_counter() - began)


def forget(package: Path) -> None:
    """Drop the package's files from the page cache, so that whoever reads them next is charged."""
    for file in package.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--memory", type=parse_size, default=parse_size("1.5GiB"))
    parser.add_argument("--hard", type=parse_size, default=parse_size("2GiB"))
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inner:
        sizes = (given.prompt_tokens, given.new_tokens, given.threads)
        print(json.dumps(measure(given.package, given.memory, *sizes)))
        return
    if not available():
        sys.exit("this machine does not let us make a cgroup, so there is no hard limit to run under")
    weights = [given.package / name for name in read_manifest(given.package).weights if "block" in name]
    rates = [disk_rate(weights)]
    forget(given.package)
    finished = run_limited([sys.executable, *sys.argv, "--inner"], given.hard)
    rates.append(disk_rate(weights))
    if finished.code:
        sys.exit(f"exit code {finished.code}: {finished.stderr}")
    limits = {"memory_bytes": given.memory, "hard_limit_bytes": given.hard, "charged_bytes": finished.peak}
    disk = {"disk_bytes_per_s": [round(rate) for rate in rates]}
    print(json.dumps({**limits, **json.loads(finished.stdout), **disk}))


if __name__ == "__main__":
    main()
