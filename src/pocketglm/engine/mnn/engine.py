"""The MNN engine: a package's graphs, one module a block, run by MNN's Python package.

Enters: a package that `export --format mnn` has added graphs to. Leaves: stages and the head. Weights
stay quantized in memory; activations are made int8 for each matrix product, which costs some accuracy
(`SCALE_PER_GROUP` in `runtime.py` has figures). MNN holds Python's global lock while a graph runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_block_range, check_hidden
from pocketglm.engine.contract import HEAD, Capabilities, EngineOptions, Float32
from pocketglm.engine.mnn.interface import (
    BLOCK_INPUTS,
    BLOCK_OUTPUTS,
    EXPORT_HINT,
    GRAPHS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    INTERFACE,
    graph_file,
)
from pocketglm.engine.mnn.runtime import (
    Graph,
    Runtime,
    available_backends,
    mnn_version,
    to_var,
    view,
)
from pocketglm.engine.mnn.stage import MnnStage
from pocketglm.errors import EngineError, IntegrityError
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import COPY_AGAIN, Package, check_file_size
from pocketglm.plan.machine import available_cpus

LOGITS_AT_ONCE = 1 << 23
"""Logits computed at a time (32 MiB); MNN holds them three times, in different layouts."""

HELD = {32: 1.0, 16: 2.0, 8: 1.25, 4: 1.25}
"""Bits -> bytes that MNN holds for a byte of a layer, measured with MNN 3.6.1 on x86-64: float16 becomes
float32; quantized layers are repacked, with the sums of each group's codes beside them."""

LOADING = 2.4
"""How often it holds a layer besides, while it loads it; measured likewise."""


class MnnEngine:
    """See `contract.Engine`."""

    name = "mnn"

    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({32, 16, 8, 4}), available_backends(), batched=False)

    def load_blocks(self, package: Package, blocks: range, options: EngineOptions) -> MnnStage:
        check_block_range(package.spec, blocks)
        check_graphs(package)
        check_memory(package, [*map(block_file, blocks), HEAD_FILE], options)
        loader = GraphLoader(package, options)
        return MnnStage(package.spec, blocks, [loader.block(index) for index in blocks])

    def load_head(self, package: Package, options: EngineOptions) -> MnnHead:
        check_graphs(package)
        check_memory(package, [HEAD_FILE], options)
        return MnnHead(package.spec, GraphLoader(package, options).head())


class MnnHead:
    """See `contract.Head`."""

    def __init__(self, spec: ModelSpec, graph: Graph) -> None:
        self._spec = spec
        self._graph: Graph | None = graph

    def logits(self, hidden: Float32) -> Float32:
        if self._graph is None:
            raise EngineError("the head was released", hint="load it again")
        check_hidden(self._spec, hidden)
        rows, vocab = hidden.shape[0], self._spec.vocab_size
        step = max(1, LOGITS_AT_ONCE // vocab)
        try:
            output = np.empty((rows, vocab), np.float32)
            for start in range(0, rows, step):
                (logits,) = self._graph(to_var(hidden[start : start + step, None, :]))
                output[start : start + step] = view(logits)[:, 0]
        except MemoryError as error:
            raise EngineError(
                f"out of memory for the logits of {rows} rows of {vocab}",
                hint="ask for fewer rows at a time",
            ) from error
        return output

    def release(self) -> None:
        self._graph = None


class GraphLoader:
    """Loads graphs of one package; those on the same backend with the same settings share a runtime."""

    def __init__(self, package: Package, options: EngineOptions) -> None:
        check_backend_keys(package.spec, options)
        self._package = package
        self._options = options
        self._threads = options.threads or available_cpus()
        self._runtimes: dict[tuple[str, bool], Runtime] = {}

    def block(self, index: int) -> Graph:
        backend = self._options.backend_of(index) or "cpu"
        return self._load(block_file(index), backend, BLOCK_INPUTS, BLOCK_OUTPUTS)

    def head(self) -> Graph:
        backend = self._options.backend_of(HEAD) or "cpu"
        return self._load(HEAD_FILE, backend, HEAD_INPUTS, HEAD_OUTPUTS)

    def _load(self, weights: str, backend: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
        graph = self._package.path / graph_file(weights)
        _check_hash(self._package, graph)
        # MNN computes with whatever is in memory where a weight file is short or gone.
        weight_path = self._package.path / weights
        check_file_size(weight_path, self._package.manifest.files[weights].size)
        settings = (backend, all_grouped(self._package, weights))
        if settings not in self._runtimes:
            self._runtimes[settings] = Runtime(backend, self._threads, settings[1])
        return self._runtimes[settings].load(graph, weight_path, inputs, outputs)


def all_grouped(package: Package, weights: str) -> bool:
    """Whether every quantized layer of a weight file has groups smaller than a row."""
    linears = (e for e in package.manifest.weights[weights] if isinstance(e, LinearEntry))
    return all(e.format.group != 0 for e in linears if e.format.quantized)


def check_graphs(package: Package) -> None:
    """The package has all graphs, made for this engine and for an MNN no newer than the installed one."""
    hint = EXPORT_HINT.format(package.path)
    stamp = package.manifest.graphs.get(GRAPHS)
    if stamp is None:
        raise EngineError("the package has no MNN graphs", where=package.path, hint=hint)
    if stamp.get("interface") != INTERFACE:
        raise EngineError(
            f"its MNN graphs have interface {stamp.get('interface')!r}, this engine runs {INTERFACE}",
            where=package.path,
            hint=hint,
        )
    files = [*map(block_file, range(package.spec.num_blocks)), HEAD_FILE]
    if missing := [f for f in map(graph_file, files) if f not in package.manifest.files]:
        raise EngineError(f"the package lacks the graph {missing[0]}", where=package.path, hint=hint)
    made_with, installed = str(stamp.get("mnn_version")), mnn_version()
    if not runs(made_with, installed):
        raise EngineError(
            f"its graphs were made with MNN {made_with}, MNN {installed} is installed",
            where=package.path,
            hint=f"install MNN {made_with}, or {hint}",
        )


def check_backend_keys(spec: ModelSpec, options: EngineOptions) -> None:
    """Backends are named for parts that the model has."""
    if options.backend is None or isinstance(options.backend, str):
        return
    for part in options.backend:
        if part != HEAD and part not in range(spec.num_blocks):
            parts = f"blocks 0 to {spec.num_blocks - 1} and {HEAD!r}"
            raise EngineError(f"a backend is named for {part!r}, the model has {parts}")


def runs(made_with: str, installed: str) -> bool:
    """Whether an MNN runs graphs of another: the same major version, and no older minor version."""
    try:
        made, have = ([int(part) for part in text.split(".")[:2]] for text in (made_with, installed))
    except ValueError:
        return False
    return made[0] == have[0] and made <= have


def check_memory(package: Package, files: Iterable[str], options: EngineOptions) -> None:
    """The weights fit in the memory allowed: MNN copies all of them at load."""
    need = memory_needed(package, files)
    limit = options.memory_bytes
    if limit is None:
        import psutil

        limit = int(psutil.virtual_memory().available)
    if need > limit:
        mib = [f"{size / 2**20:.0f} MiB" for size in (need, limit)]
        raise EngineError(
            f"the mnn engine needs about {mib[0]} to load the weights, {mib[1]} are allowed",
            where=package.path,
            hint="allow more memory, convert with fewer bits, or use another engine",
        )


def memory_needed(package: Package, files: Iterable[str]) -> int:
    """Bytes that MNN takes at most while it loads weight files; it holds a layer twice more meanwhile."""
    sizes = [
        (entry.end - entry.offset) * (HELD[entry.format.bits] if isinstance(entry, LinearEntry) else 1.0)
        for name in files
        for entry in package.manifest.weights[name]
    ]
    return int(sum(sizes) + LOADING * max(sizes))


def _check_hash(package: Package, graph: Path) -> None:
    entry = package.manifest.files[graph.name]
    check_file_size(graph, entry.size)
    if hashlib.sha256(graph.read_bytes()).hexdigest() != entry.sha256:
        raise IntegrityError("its SHA-256 differs from the manifest's", where=graph, hint=COPY_AGAIN)
