"""The native engine: C++ kernels and decoder on the package's files as they are.

Enters: a package. Leaves: stages and the head. Weight files are mapped by the C++ side and used in
place: loading takes no time, and the pages are shared and evictable. With a memory limit, blocks that
do not fit are read ahead of their turn at each pass.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from pocketglm.engine.checks import check_block_range, check_streamed
from pocketglm.engine.contract import Capabilities, EngineOptions, KVType
from pocketglm.engine.native.description import KV_TYPES, describe_block, describe_head, describe_spec
from pocketglm.engine.native.memory_plan import (
    UNPLANNED_CONTEXT,
    cache_bytes,
    head_bytes,
    plan_head,
    plan_memory,
    weights_bytes,
    work_bytes,
)
from pocketglm.engine.native.stage import NativeHead, NativeStage
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package

EXACT_ROWS = 4
"""`ROWS_AT_ONCE` of native/engine/matrix_layout.h: rows that the matrix kernels take together, each as
if it were alone."""

Loaded = TypeVar("Loaded")


class NativeEngine:
    """See `contract.Engine`. `kv` is what KV caches hold where the options leave it open."""

    name = "native"

    def __init__(self, kv: KVType = "float16") -> None:
        self._kv = kv

    def capabilities(self) -> Capabilities:
        weights = frozenset({32, 16, 8, 4})
        types = tuple(KV_TYPES)
        return Capabilities(
            weights,
            ("cpu",),
            batched=True,
            kv_types=types,
            exact_rows=EXACT_ROWS,
            holds_memory=True,
            streams=True,
        )

    def load_blocks(self, package: Package, blocks: range, options: EngineOptions) -> NativeStage:
        check_block_range(package.spec, blocks)
        kv = options.kv or self._kv
        spec = describe_spec(package.spec)
        files = [describe_block(package, index) for index in blocks]
        limits = plan_memory(package, blocks, kv, options)
        chosen = options.streamed_blocks
        check_streamed(package.spec, chosen)
        streamed = None if chosen is None else [int(index in chosen) for index in blocks]
        native = _load(
            f"blocks {blocks.start} to {blocks.stop - 1}",
            lambda: extension().Stage(
                *(spec, files, options.threads or 0, KV_TYPES[kv], None),
                *(limits.limit, limits.reserve, streamed),
            ),
        )
        return NativeStage(package.spec, blocks, native, kv)

    def memory_need(self, package: Package, part: range | None, options: EngineOptions) -> int:
        """Bytes that blocks, with caches and work memory, or the head (None) hold at most, or at least
        where the options leave it to the engine which blocks are read from disk."""
        if part is None:
            return head_bytes(package)
        kv, context = options.kv or self._kv, options.context or UNPLANNED_CONTEXT
        caches = cache_bytes(package, len(part), kv, context)
        return weights_bytes(package, part, options) + caches + work_bytes(package, part, options, context)

    def load_head(self, package: Package, options: EngineOptions) -> NativeHead:
        spec, file = describe_spec(package.spec), describe_head(package)
        limits = plan_head(package, options)
        native = _load(
            "the head",
            lambda: extension().Head(spec, file, options.threads or 0, None, limits.limit, limits.reserve),
        )
        return NativeHead(package.spec, native)


def extension() -> ModuleType:
    try:
        from pocketglm.engine.native import _engine
    except ImportError as error:
        raise EngineError(
            f"the native engine is missing or does not fit these sources ({error})",
            hint="build it: pip install . (in the checkout), or choose --engine reference",
        ) from error
    return _engine


def _load(what: str, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise EngineError(f"cannot load {what}: {error}") from error
