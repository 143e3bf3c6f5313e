"""The native engine's stage and head: the contract's checks and errors around the C++ objects."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_forward, check_hidden, check_open, check_state
from pocketglm.engine.contract import Batch, Float32, KVState, KVType
from pocketglm.errors import EngineError
from pocketglm.plan.python_memory import CHUNK_ROWS

if TYPE_CHECKING:
    from pocketglm.engine.native import _engine

MOST_POSITIONS = 2**31 - 2**16
"""Positions and lengths are 32-bit integers."""


class NativeStage:
    """See `contract.Stage`."""

    def __init__(self, spec: ModelSpec, blocks: range, native: _engine.Stage, kv: KVType) -> None:
        self.blocks = blocks
        self._spec = spec
        self._native: _engine.Stage | None = native
        self._kv = kv
        self._lengths: dict[int, int] = {}

    def open(self, sequence: int) -> None:
        with _EngineErrors():
            self._loaded().open(sequence)
        self._lengths[sequence] = 0

    def close(self, sequence: int) -> None:
        if self._lengths.pop(sequence, None) is not None and self._native is not None:
            self._native.close(sequence)

    def length(self, sequence: int) -> int:
        check_open(sequence, self._lengths)
        return self._lengths[sequence]

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        return self._forward(hidden, batch, None)

    def forward_in_place(self, hidden: Float32, batch: Batch) -> Float32:
        """As `forward`; what leaves takes the place of what enters, where the array allows it."""
        usable = hidden.flags.c_contiguous and hidden.flags.writeable and hidden.dtype == np.float32
        return self._forward(hidden, batch, hidden if usable else None)

    def _forward(self, hidden: Float32, batch: Batch, output: Float32 | None) -> Float32:
        native = self._loaded()
        check_forward(self._spec, hidden, batch, self._lengths)
        positions = batch.positions
        output = np.empty(hidden.shape, dtype=np.float32) if output is None else output
        segments = [(s.sequence, s.start, s.count, min(s.prefix, MOST_POSITIONS)) for s in batch.segments]
        with _EngineErrors():
            native.forward(segments, np.ascontiguousarray(positions), np.ascontiguousarray(hidden), output)
        for segment in batch.segments:
            self._lengths[segment.sequence] += segment.count
        return output

    def truncate(self, sequence: int, length: int) -> None:
        check_open(sequence, self._lengths)
        self._check_length(length, self._lengths[sequence], f"cannot truncate sequence {sequence}")
        self._loaded().truncate(sequence, length)
        self._lengths[sequence] = length

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        for sequence in (source, target):
            check_open(sequence, self._lengths)
        self._check_length(length, self._lengths[source], f"cannot copy from sequence {source}")
        with _EngineErrors():
            self._loaded().copy_prefix(source, target, length)
        self._lengths[target] = length

    def save(self, sequence: int) -> KVState:
        check_open(sequence, self._lengths)
        shape = (
            *(len(self.blocks), self._lengths[sequence]),
            *(self._spec.num_kv_heads, self._spec.head_dim),
        )
        keys, values = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        with _EngineErrors():
            self._loaded().save(sequence, keys, values)
        if self._kv == "float32":
            return KVState(keys, values)
        return KVState(*(_as_halves(array) for array in (keys, values)))

    def restore(self, sequence: int, state: KVState) -> None:
        check_open(sequence, self._lengths)
        check_state(self._spec, self.blocks, state)
        keys, values = (np.ascontiguousarray(a, dtype=np.float32) for a in (state.keys, state.values))
        with _EngineErrors():
            self._loaded().restore(sequence, keys, values)
        self._lengths[sequence] = state.length

    def usage(self) -> dict[str, Any]:
        """Kernels in use, threads, and bytes of weights, KV caches and buffers."""
        return self._loaded().usage()

    def work_bytes(self, context: int) -> int:
        """Activations and scratch that a sequence of `context` tokens takes at most: in its last large
        pass, or in its last small one."""
        whole = self._spec.prefix_tokens is not None
        rows = context if whole else min(CHUNK_ROWS, context)
        large = (context - rows, rows, context if whole else 0)
        small = (context - 1, 1, 0)
        return max(self._loaded().work_bytes(*sizes) for sizes in (large, small))

    def place_of(self, index: int) -> str:
        """`ram`, or `disk` where the block is read at every pass."""
        return "disk" if self._loaded().streamed()[index - self.blocks.start] else "ram"

    def release(self) -> None:
        self._native = None
        self._lengths.clear()

    def _loaded(self) -> _engine.Stage:
        if self._native is None:
            raise EngineError("the stage was released", hint="load the blocks again")
        return self._native

    def _check_length(self, length: int, held: int, problem: str) -> None:
        if not 0 <= length <= held:
            raise EngineError(f"{problem}: it holds {held} positions, asked for {length}")


class NativeHead:
    """See `contract.Head`."""

    def __init__(self, spec: ModelSpec, native: _engine.Head) -> None:
        self._spec = spec
        self._native: _engine.Head | None = native

    def logits(self, hidden: Float32) -> Float32:
        native = self._loaded()
        check_hidden(self._spec, hidden)
        try:
            output = np.empty((len(hidden), self._spec.vocab_size), dtype=np.float32)
        except MemoryError as error:
            size = f"{len(hidden)} rows of {self._spec.vocab_size}"
            raise EngineError(
                f"out of memory for the logits of {size}", hint="ask for fewer rows at a time"
            ) from error
        with _EngineErrors():
            native.logits(np.ascontiguousarray(hidden), output)
        return output

    def choose(
        self, samplers: Sequence[_engine.Sampler], logits: Float32, uniforms: Sequence[float]
    ) -> list[int]:
        """A token from each row of logits, as `Sampler.next` and on all threads; -1 where that would fail."""
        with _EngineErrors():
            return self._loaded().choose(samplers, logits, uniforms)

    def usage(self) -> dict[str, Any]:
        """As `NativeStage.usage`."""
        return self._loaded().usage()

    def work_bytes(self, rows: int) -> int:
        """Activations and scratch that `rows` rows take."""
        return self._loaded().work_bytes(rows)

    def release(self) -> None:
        self._native = None

    def _loaded(self) -> _engine.Head:
        if self._native is None:
            raise EngineError("the head was released", hint="load it again")
        return self._native


def _as_halves(array: Float32) -> NDArray[np.floating]:
    """What a float16 cache holds, without loss; of an int8 cache the codes, and the scales to 11 bits.

    Scaled codes too large for float16 stay float32.
    """
    with np.errstate(over="ignore"):
        halves = array.astype(np.float16)
    return halves if np.isfinite(halves).all() or not np.isfinite(array).all() else array


class _EngineErrors:
    """What the C++ side refuses, as `EngineError`; it has changed nothing then."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MemoryError):
            raise EngineError(f"out of memory ({error}); caches are unchanged") from error
        if isinstance(error, (ValueError, OSError, RuntimeError)):
            raise EngineError(str(error)) from error
