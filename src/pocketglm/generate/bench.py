"""Speed and memory of a package in an engine, measured with real tokens.

Enters: a package directory and sizes. Leaves: load time, prefill and decode rates (medians over
rounds; the first prefill, which finds nothing in the caches, beside the later ones), decode rates at
several contexts, and the process's peak memory.
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

from pocketglm.engine.contract import KVType
from pocketglm.errors import InputError
from pocketglm.generate.batch import decode_together
from pocketglm.generate.load_settings import Backend
from pocketglm.generate.memory_budget import anonymous_bytes, status_bytes
from pocketglm.generate.model import Model, load
from pocketglm.generate.session import Session
from pocketglm.plan.placement import Placement

Progress = Callable[[str, int, int], None]
"""(what is measured, rounds done, rounds in all)."""


@dataclass(frozen=True)
class BenchSettings:
    """`sequences` are decoded together, one token each a step. `contexts` are lengths at which one
    sequence is decoded besides."""

    prompt_tokens: int = 128
    new_tokens: int = 32
    sequences: int = 1
    rounds: int = 3
    contexts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        named = {name: getattr(self, name) for name in ("prompt_tokens", "new_tokens", "sequences", "rounds")}
        for name, value in [*named.items(), *(("a context", length) for length in self.contexts)]:
            if value < 1:
                raise InputError(f"{name} is {value}, expected 1 or more")

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.prompt_tokens, *self.contexts, 0) + self.new_tokens


@dataclass(frozen=True)
class ContextRates:
    """One sequence of `context` tokens: its prefill and what decoding after it makes, tokens a second."""

    context: int
    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True)
class BenchResult:
    """`placement` is where blocks were in the end, None on one engine.

    Rates are tokens a second. `prefill_tps` is of one sequence, `decode_tps` of all together.

    `first_prefill_tps` is the very first one after loading, `prefill_tps` the median of the others
    (the first itself where there are no others). Peaks are bytes: resident memory with mapped files,
    and its anonymous part, which is sampled after loading, prefills and decodes (0: not known).
    """

    engine: str
    placement: str | None
    prompt_tokens: int
    new_tokens: int
    sequences: int
    rounds: int
    contexts: tuple[ContextRates, ...]
    load_s: float
    first_prefill_tps: float
    prefill_tps: float
    decode_tps: float
    peak_rss_bytes: int
    peak_anonymous_bytes: int

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        data["contexts"] = [_rounded(rates) for rates in data["contexts"]]
        return _rounded(data)


def _rounded(data: dict[str, Any]) -> dict[str, Any]:
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in data.items()}


def bench(
    path: str | Path,
    settings: BenchSettings,
    *,
    engine: str | None = None,
    threads: int | None = None,
    memory: int | None = None,
    backend: Backend = None,
    kv: KVType | None = None,
    context: int | None = None,
    placement: Placement | str | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Load the package and measure. Raises `InputError` where the tokens exceed its context."""
    began = time.perf_counter()
    loading = load(path, engine, threads, memory, backend, kv=kv, context=context, placement=placement)
    with loading as model:
        load_s = time.perf_counter() - began
        if settings.longest > model.context:
            raise InputError(
                f"the run needs {settings.longest} tokens, the model's context holds {model.context}"
            )
        run = _Run(model, settings, progress or (lambda step, done, total: None))
        run.measure()
        return BenchResult(
            *(model.engine_name, model.place_text),
            *(settings.prompt_tokens, settings.new_tokens, settings.sequences, settings.rounds),
            contexts=tuple(run.rates_of(length) for length in settings.contexts),
            load_s=load_s,
            first_prefill_tps=run.prefills[0],
            prefill_tps=statistics.median(run.prefills[1:] or run.prefills),
            decode_tps=statistics.median(run.decodes),
            peak_rss_bytes=peak_rss_bytes(),
            peak_anonymous_bytes=run.anonymous,
        )


class _Run:
    """The rounds of one benchmark; contexts take turns with the prompt, so that noise meets all alike."""

    def __init__(self, model: Model, settings: BenchSettings, progress: Progress) -> None:
        self.prefills: list[float] = []
        self.decodes: list[float] = []
        self.anonymous = anonymous_bytes()
        self._by_context: dict[int, list[tuple[float, float]]] = {length: [] for length in settings.contexts}
        self._model = model
        self._settings = settings
        self._progress = progress

    def measure(self) -> None:
        settings = self._settings
        prompts = bench_prompts(self._model, settings.prompt_tokens, settings.sequences)
        for done in range(settings.rounds):
            self._progress("measuring", done, settings.rounds)
            prefill, decode = self._one(prompts)
            self.prefills += prefill
            self.decodes.append(decode)
            for length, rates in self._by_context.items():
                (prefill_tps, *_), decode_tps = self._one(bench_prompts(self._model, length, 1))
                rates.append((prefill_tps, decode_tps))

    def rates_of(self, length: int) -> ContextRates:
        prefills, decodes = zip(*self._by_context[length], strict=True)
        return ContextRates(length, statistics.median(prefills), statistics.median(decodes))

    def _one(self, prompts: list[list[int]]) -> tuple[list[float], float]:
        return _measure(self._model, prompts, self._settings.new_tokens, self._sample)

    def _sample(self) -> None:
        self.anonymous = max(self.anonymous, anonymous_bytes())


def _measure(
    model: Model, prompts: list[list[int]], new_tokens: int, sample: Callable[[], None]
) -> tuple[list[float], float]:
    """Rates of one round: of every prefill, and of decoding; greedy, end tokens ignored."""
    sessions: list[Session] = []
    try:
        tokens, prefills = [], []
        for prompt in prompts:
            sessions.append(model.session())
            began = time.perf_counter()
            tokens.append(int(sessions[-1].forward(prompt, last_only=True)[-1].argmax()))
            prefills.append(len(prompt) / (time.perf_counter() - began))
        sample()
        began = time.perf_counter()
        for _ in range(new_tokens):
            tokens = [int(token) for token in decode_together(sessions, tokens).argmax(1)]
        decode_s = time.perf_counter() - began
        sample()
    finally:
        for session in sessions:
            session.close()
    return prefills, len(prompts) * new_tokens / decode_s


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
    if peak := status_bytes("VmHWM"):  # getrusage counts what the parent held before exec
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
