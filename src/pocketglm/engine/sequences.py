"""What stages that keep their caches in Python do alike: opening, cutting, copying and saving sequences.

Enters: calls of `contract.Stage` about sequences. Leaves: the caches a forward pass works on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_open, check_state
from pocketglm.engine.contract import KVState
from pocketglm.errors import EngineError


class SequenceCache(Protocol):
    """The KV cache of one sequence in all blocks of a stage."""

    length: int

    def truncate(self, length: int) -> None: ...
    def copy_from(self, source: Any, length: int) -> None: ...
    def save(self) -> KVState: ...
    def restore(self, state: KVState) -> None: ...


Cache = TypeVar("Cache", bound=SequenceCache)


class SequenceStage(Generic[Cache]):
    """The part of `contract.Stage` that is about sequences; `parts` are what `release` frees."""

    def __init__(
        self, spec: ModelSpec, blocks: range, parts: list[Any], new_cache: Callable[[], Cache]
    ) -> None:
        self.blocks = blocks
        self._spec = spec
        self._parts = parts
        self._new_cache = new_cache
        self._caches: dict[int, Cache] = {}

    def open(self, sequence: int) -> None:
        self._check_loaded()
        if sequence in self._caches:
            raise EngineError(f"sequence {sequence} is open already")
        self._caches[sequence] = self._new_cache()

    def close(self, sequence: int) -> None:
        self._caches.pop(sequence, None)

    def length(self, sequence: int) -> int:
        return self._cache(sequence).length

    def truncate(self, sequence: int, length: int) -> None:
        cache = self._cache(sequence)
        if not 0 <= length <= cache.length:
            raise EngineError(f"cannot truncate sequence {sequence} of length {cache.length} to {length}")
        cache.truncate(length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        cache = self._cache(source)
        if not 0 <= length <= cache.length:
            raise EngineError(f"cannot copy {length} positions: sequence {source} holds {cache.length}")
        self._fill(target, lambda empty: empty.copy_from(cache, length))

    def save(self, sequence: int) -> KVState:
        return self._cache(sequence).save()

    def restore(self, sequence: int, state: KVState) -> None:
        check_state(self._spec, self.blocks, state)
        self._fill(sequence, lambda empty: empty.restore(state))

    def release(self) -> None:
        self._parts.clear()
        self._caches.clear()

    def _lengths(self) -> dict[int, int]:
        return {sequence: cache.length for sequence, cache in self._caches.items()}

    def _cache(self, sequence: int) -> Cache:
        check_open(sequence, self._caches)
        return self._caches[sequence]

    def _fill(self, sequence: int, fill: Callable[[Cache], None]) -> None:
        """Fill the cache of an open, empty sequence."""
        cache = self._cache(sequence)
        if cache.length:
            raise EngineError(f"sequence {sequence} holds {cache.length} positions, it must be empty")
        try:
            fill(cache)
        except MemoryError as error:
            raise EngineError(f"out of memory for the cache of sequence {sequence}") from error

    def _check_loaded(self) -> None:
        if not self._parts:
            raise EngineError("the stage was released", hint="load the blocks again")
