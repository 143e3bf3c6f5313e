"""One measurement in a fresh process: arguments MODULE TASK, the result as the last line.

Enters: the name of a peer's module here and a `Task` as JSON. Leaves: seconds and bytes as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.task import Runner, Task

MARK = "peers-result "
COMPARED_LOGITS = 1024


def main() -> None:
    entered = time.monotonic()
    task = Task.from_json(sys.argv[2])
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard output
    pin(task.threads)
    began = time.perf_counter()
    module = importlib.import_module(f"peers.{sys.argv[1]}")
    runner = module.load(task)
    loaded = time.perf_counter()
    logits = runner.prefill(task.tokens(task.first_prompt))
    answered, finished = time.perf_counter(), time.monotonic()
    result: dict[str, Any] = {
        "version": module.version(),
        "load_s": loaded - began,
        "first_prefill_s": answered - loaded,
        "first_token_s": answered - began,
        "first_token_from_start_s": finished - task.started,
        "interpreter_s": entered - task.started,
    }
    run(runner, 0, task.new_tokens)
    result |= memory() | {"logits": [round(float(x), 4) for x in logits[:COMPARED_LOGITS]]}
    result |= steady(runner, task)
    results.write("\n" + MARK + json.dumps(result) + "\n")
    results.flush()
    os._exit(0)  # some libraries crash when they clean up


def pin(threads: int) -> None:
    """As many cores as threads, so that none wanders."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)


def steady(runner: Runner, task: Task) -> dict[str, Any]:
    """Seconds of a prefill, and of one step of decoding, by size."""
    counts = [count for count in task.sequences if count <= runner.most_sequences]
    return {
        "prefill_s": {size: attempt(time_prefill, runner, task, size) for size in task.prompts},
        "decode_s": {context: attempt(time_decode, runner, task, context) for context in task.contexts},
        "together_s": {count: attempt(time_together, runner, task, count) for count in counts},
    }


def attempt(measure: Callable[[Runner, Task, int], float], runner: Runner, task: Task, size: int) -> Any:
    """The figure, or None where the peer cannot: a context that is too long, say."""
    try:
        return measure(runner, task, size)
    except Exception as error:
        print(f"{sys.argv[1]}: {measure.__name__} {size}: {error}", file=sys.stderr)
        return None


def time_prefill(runner: Runner, task: Task, size: int) -> float:
    seconds = []
    for repeat in range(task.repeats):
        tokens = task.tokens(size, repeat + 1)
        began = time.perf_counter()
        runner.prefill(tokens)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def time_decode(runner: Runner, task: Task, context: int) -> float:
    runner.prefill(task.tokens(context))
    token = run(runner, 1, 2)
    began = time.perf_counter()
    run(runner, token, task.new_tokens)
    return (time.perf_counter() - began) / task.new_tokens


def time_together(runner: Runner, task: Task, count: int) -> float:
    """Seconds of a step of all sequences."""
    prompts = [task.tokens(16, seed) for seed in range(count)]
    runner.start_sequences(prompts)
    tokens = runner.decode_sequences([prompt[0] for prompt in prompts])
    began = time.perf_counter()
    for _ in range(task.new_tokens):
        tokens = runner.decode_sequences(tokens)
    return (time.perf_counter() - began) / task.new_tokens


def run(runner: Runner, token: int, count: int) -> int:
    for _ in range(count):
        token = runner.decode(token)
    return token


def memory() -> dict[str, int]:
    """Peak resident and current anonymous memory in bytes; empty where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return {}
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    names = {"peak_rss_bytes": "VmHWM", "anonymous_bytes": "RssAnon"}
    return {name: int(fields[field].split()[0]) * 1024 for name, field in names.items()}
