"""The native engine: C++ kernels and decoder on the package's files as they are.

Enters: a package. Leaves: stages and the head. Weight files are mapped by the C++ side and used in
place: loading takes no time, and the pages are shared and evictable. With a memory limit, blocks that
do not fit are read ahead of their turn at each pass.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from pocketglm.engine.checks import check_block_range
from pocketglm.engine.contract import Capabilities, EngineOptions, KVType
from pocketglm.engine.native.description import KV_TYPES, describe_block, describe_head, describe_spec
from pocketglm.engine.native.stage import NativeHead, NativeStage
from pocketglm.errors import EngineError
from pocketglm.package.layout import HEAD_FILE
from pocketglm.package.reader import Package

Loaded = TypeVar("Loaded")

HEAD_BUFFERS = 8 << 20
"""Bytes that the head's activations take at most, for a few rows at a time."""


class NativeEngine:
    """See `contract.Engine`. `kv` is what KV caches hold where the options leave it open."""

    name = "native"

    def __init__(self, kv: KVType = "float16") -> None:
        self._kv = kv

    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({32, 16, 8, 4}), ("cpu",), batched=True)

    def load_blocks(self, package: Package, blocks: range, options: EngineOptions) -> NativeStage:
        check_block_range(package.spec, blocks)
        kv_type = KV_TYPES[options.kv or self._kv]
        spec = describe_spec(package.spec)
        files = [describe_block(package, index) for index in blocks]
        memory = _memory_for_blocks(package, options)
        native = _load(
            f"blocks {blocks.start} to {blocks.stop - 1}",
            lambda: _extension().Stage(spec, files, options.threads or 0, kv_type, None, memory),
        )
        return NativeStage(package.spec, blocks, native)

    def load_head(self, package: Package, options: EngineOptions) -> NativeHead:
        spec, file = describe_spec(package.spec), describe_head(package)
        threads = options.threads or 0
        native = _load("the head", lambda: _extension().Head(spec, file, threads, None, 0))
        return NativeHead(package.spec, native)


def _memory_for_blocks(package: Package, options: EngineOptions) -> int:
    """What the head leaves of the memory allowed; 0 stands for no limit.

    Blocks that exceed their part of it are read from disk at each pass, the head always stays.
    """
    if options.memory_bytes is None:
        return 0
    head = package.manifest.files[HEAD_FILE].size + HEAD_BUFFERS
    if options.memory_bytes <= head:
        raise EngineError(
            f"the memory limit of {options.memory_bytes} bytes is too small: the head alone takes {head}",
            hint="allow more memory, or convert with fewer --head-bits",
        )
    return options.memory_bytes - head


def _extension() -> ModuleType:
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
