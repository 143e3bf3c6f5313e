"""Speed and memory of a package in an engine, measured with real tokens.

Enters: a package directory and sizes. Leaves: load time, prefill and decode rates (medians over
rounds), and the process's peak resident memory.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pocketglm.errors import InputError
from pocketglm.generate.batch import decode_together
from pocketglm.generate.model import Backend, Model, load
from pocketglm.generate.session import Session

Progress = Callable[[str, int, int], None]
"""(what is measured, rounds done, rounds in all)."""


@dataclass(frozen=True)
class BenchSettings:
    """`sequences` are decoded together, one token each a step."""

    prompt_tokens: int = 128
    new_tokens: int = 32
    sequences: int = 1
    rounds: int = 3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise InputError(f"{name} is {value}, expected 1 or more")


@dataclass(frozen=True)
class BenchResult:
    """Rates are tokens a second. `prefill_tps` is of one sequence, `decode_tps` of all together."""

    engine: str
    prompt_tokens: int
    new_tokens: int
    sequences: int
    rounds: int
    load_s: float
    prefill_tps: float
    decode_tps: float
    peak_rss_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()}


def bench(
    path: str | Path,
    settings: BenchSettings,
    *,
    engine: str | None = None,
    threads: int | None = None,
    memory: int | None = None,
    backend: Backend = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Load the package and measure. Raises `InputError` where the tokens exceed its context."""
    began = time.perf_counter()
    with load(path, engine, threads, memory, backend) as model:
        load_s = time.perf_counter() - began
        prompts = bench_prompts(model, settings.prompt_tokens, settings.sequences)
        need = settings.prompt_tokens + settings.new_tokens
        if need > model.spec.max_context:
            raise InputError(
                f"the run needs {need} tokens, the model's context holds {model.spec.max_context}"
            )
        prefills, decodes = [], []
        for done in range(settings.rounds):
            if progress:
                progress("measuring", done, settings.rounds)
            prefill, decode = _measure(model, prompts, settings.new_tokens)
            prefills.append(prefill)
            decodes.append(decode)
        return BenchResult(
            model.engine_name,
            **asdict(settings),
            load_s=load_s,
            prefill_tps=statistics.median(prefills),
            decode_tps=statistics.median(decodes),
            peak_rss_bytes=peak_rss_bytes(),
        )


def _measure(model: Model, prompts: list[list[int]], new_tokens: int) -> tuple[float, float]:
    """Prefill and decode rates of one round; greedy, end tokens ignored."""
    sessions: list[Session] = []
    try:
        tokens, prefill_s = [], 0.0
        for prompt in prompts:
            sessions.append(model.session())
            began = time.perf_counter()
            tokens.append(int(sessions[-1].forward(prompt, last_only=True)[-1].argmax()))
            prefill_s += time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(new_tokens):
            tokens = [int(token) for token in decode_together(sessions, tokens).argmax(1)]
        decode_s = time.perf_counter() - began
    finally:
        for session in sessions:
            session.close()
    return sum(map(len, prompts)) / prefill_s, len(prompts) * new_tokens / decode_s


def bench_prompts(model: Model, length: int, count: int) -> list[list[int]]:
    """`count` different prompts of `length` tokens: pieces of a text, or seeded random ids where the
    package has no tokenizer. ChatGLM-6B's end in `[gMASK] <sop>`."""
    ending = (
        []
        if model.spec.prefix_tokens is None
        else [model.spec.prefix_tokens.gmask, model.spec.prefix_tokens.sop]
    )
    body = length - len(ending)
    if body < 1:
        raise InputError(f"prompt_tokens is {length}, expected {len(ending) + 1} or more")
    if model.has_tokenizer:
        text = files("pocketglm.generate").joinpath("bench_text.txt").read_text("utf-8")
        source = model.tokenizer.encode(text)
    else:
        source = [int(i) for i in np.random.default_rng(0).integers(0, model.spec.vocab_size, 4096)]
        source = [i for i in source if i not in ending]
    starts = [index * 37 for index in range(count)]  # different beginnings, so no two prompts are equal
    return [[source[(start + i) % len(source)] for i in range(body)] + ending for start in starts]


def peak_rss_bytes() -> int:
    """Most memory this process has held at once, mapped files included."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent held before exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
