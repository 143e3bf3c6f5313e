"""The reference engine: clear NumPy in float32, the oracle that the other engines are tested against.

Enters: a package. Leaves: stages and the head. Weights are dequantized once, where their float32 form
fits in memory; otherwise a few rows at a time at each use, so that any model runs, slowly.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from pocketglm.architecture.spec import ModelSpec
from pocketglm.architecture.table import block_shapes, head_shapes
from pocketglm.engine.checks import check_block_range, check_hidden
from pocketglm.engine.contract import Capabilities, EngineOptions, Float32
from pocketglm.engine.reference.block import apply_norm
from pocketglm.engine.reference.stage import ReferenceStage, ThreadLimit
from pocketglm.engine.reference.weights import WeightSource, load_weights
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package

WEIGHTS_SHARE = 0.75
"""Share of the memory that weights may take; the rest is for KV caches and activations."""

MANY_ROWS = 16
"""From this many rows on, matrix products are bound by arithmetic and use every core."""


class ReferenceEngine:
    """See `contract.Engine`."""

    name = "reference"

    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({32, 16, 8, 4}), ("cpu",), batched=True)

    def load_blocks(self, package: Package, blocks: range, options: EngineOptions) -> ReferenceStage:
        spec = package.spec
        check_block_range(spec, blocks)
        # The head is loaded after the blocks and must find room too.
        resident = _fits(len(blocks) * block_bytes(spec) + head_bytes(spec), options)
        try:
            weights = [load_weights(package, partial(package.block, index), resident) for index in blocks]
        except MemoryError as error:
            raise EngineError(f"out of memory while loading blocks {blocks}") from error
        return ReferenceStage(spec, blocks, weights, _thread_limit(options))

    def load_head(self, package: Package, options: EngineOptions) -> ReferenceHead:
        resident = _fits(head_bytes(package.spec), options)
        try:
            weights = load_weights(package, package.head, resident)
        except MemoryError as error:
            raise EngineError("out of memory while loading the head") from error
        return ReferenceHead(package.spec, weights, _thread_limit(options))


class ReferenceHead:
    """See `contract.Head`."""

    def __init__(self, spec: ModelSpec, weights: WeightSource, limit_threads: ThreadLimit) -> None:
        self._spec = spec
        self._weights: WeightSource | None = weights
        self._limit_threads = limit_threads

    def logits(self, hidden: Float32) -> Float32:
        if self._weights is None:
            raise EngineError("the head was released", hint="load it again")
        check_hidden(self._spec, hidden)
        weights = self._weights()
        try:
            with self._limit_threads(len(hidden)):
                return weights.linear("head", apply_norm(self._spec, hidden, weights.vector, "norm"))
        except MemoryError as error:
            size = f"{hidden.shape[0]} rows of {self._spec.vocab_size}"
            raise EngineError(
                f"out of memory for the logits of {size}", hint="ask for fewer rows at a time"
            ) from error

    def release(self) -> None:
        self._weights = None


def block_bytes(spec: ModelSpec) -> int:
    """Size of one block's weights as float32."""
    return 4 * sum(math.prod(shape) for shape in block_shapes(spec).values())


def head_bytes(spec: ModelSpec) -> int:
    """Size of the final norm and the output projection as float32."""
    return 4 * sum(math.prod(shape) for shape in head_shapes(spec).values())


def _fits(size: int, options: EngineOptions) -> bool:
    """Whether weights of `size` bytes may be held in memory."""
    available = options.memory_bytes
    if available is None:
        import psutil

        available = int(psutil.virtual_memory().available)
    return size <= WEIGHTS_SHARE * available


def _thread_limit(options: EngineOptions) -> ThreadLimit:
    """Contexts that hold BLAS, where the time is spent, to `options.threads` threads.

    Left to us, a few rows get one thread: matrix-vector products are bound by memory, and OpenBLAS's
    threads spin while they wait, which on a machine with other work costs more than they bring.
    """
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController()  # finding the libraries takes milliseconds: once, not per call

    def limit(rows: int) -> AbstractContextManager[object]:
        threads = options.threads or (1 if rows < MANY_ROWS else None)
        return nullcontext() if threads is None else controller.limit(limits=threads, user_api="blas")

    return limit
