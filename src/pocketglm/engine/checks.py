"""What every engine refuses before it computes anything, so that a refused call changes nothing.

Enters: the arguments of a `Stage` call. Leaves: nothing, or an `EngineError` that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch, Float32, KVState, Segment
from pocketglm.errors import EngineError

INT32 = np.dtype(np.int32)


def check_forward(spec: ModelSpec, hidden: Float32, batch: Batch, lengths: Mapping[int, int]) -> None:
    """Check the arguments of `Stage.forward`; `lengths` holds the cache length of each open sequence."""
    if not batch.segments:
        raise EngineError("the batch is empty")
    seen: set[int] = set()
    for segment in batch.segments:
        if segment.sequence in seen:
            raise EngineError(f"sequence {segment.sequence} occurs twice in one batch")
        seen.add(segment.sequence)
        check_open(segment.sequence, lengths)
        _check_segment(spec, segment, lengths[segment.sequence])
    _check_positions(batch)
    check_hidden(spec, hidden)
    if hidden.shape[0] != batch.rows:
        raise EngineError(f"hidden has {hidden.shape[0]} rows, the batch has {batch.rows}")


def _check_positions(batch: Batch) -> None:
    """No position is negative: looked for in all segments at once, which have a row each while answers are
    computed together."""
    if int(batch.positions.min()) >= 0:
        return
    for segment in batch.segments:
        if (least := int(segment.positions.min())) < 0:
            raise EngineError(f"position {least} is negative", where=f"sequence {segment.sequence}")


def check_hidden(spec: ModelSpec, hidden: Float32) -> None:
    """Hidden states are float32 [rows, hidden_size]."""
    if not isinstance(hidden, np.ndarray) or hidden.dtype != np.float32:
        found = getattr(hidden, "dtype", type(hidden).__name__)
        raise EngineError(f"hidden states must be a float32 array, found {found}")
    if hidden.ndim != 2 or hidden.shape[1] != spec.hidden_size:
        raise EngineError(f"hidden has shape {hidden.shape}, expected (rows, {spec.hidden_size})")


def check_open(sequence: int, lengths: Mapping[int, object]) -> None:
    """The sequence has a cache."""
    if sequence not in lengths:
        raise EngineError(f"sequence {sequence} is not open", hint="call open(sequence) first")


def check_streamed(spec: ModelSpec, streamed: Iterable[int] | None) -> None:
    """Blocks that are to be read from disk are blocks of the model, of this stage or another one."""
    for index in streamed or ():
        if type(index) is not int or not 0 <= index < spec.num_blocks:
            raise EngineError(
                f"block {index!r} cannot be read from disk: the model has {spec.num_blocks} blocks"
            )


def check_block_range(spec: ModelSpec, blocks: range) -> None:
    """A stage is a run of consecutive blocks of the model, at least one."""
    if blocks.step != 1 or not 0 <= blocks.start < blocks.stop <= spec.num_blocks:
        raise EngineError(f"cannot load blocks {blocks}: the model has blocks 0 to {spec.num_blocks - 1}")


def check_state(spec: ModelSpec, blocks: range, state: KVState) -> None:
    """A saved cache fits the stage that is to restore it."""
    for name, array in (("keys", state.keys), ("values", state.values)):
        if array.dtype not in (np.float32, np.float16):
            raise EngineError(f"saved {name} are {array.dtype}, expected float32 or float16")
        length = state.keys.shape[1] if state.keys.ndim > 1 else 0
        expected = (len(blocks), length, spec.num_kv_heads, spec.head_dim)
        if array.shape != expected:
            raise EngineError(f"saved {name} have shape {array.shape}, this stage needs {expected}")


def _check_segment(spec: ModelSpec, segment: Segment, length: int) -> None:
    where = f"sequence {segment.sequence}"
    positions = np.asarray(segment.positions)
    if positions.dtype != INT32 or positions.ndim != 2 or positions.shape[0] != spec.position_axes:
        found = f"{positions.dtype} {positions.shape}"
        raise EngineError(f"positions are {found}, expected int32 ({spec.position_axes}, rows)", where=where)
    if segment.count == 0:
        raise EngineError("the segment has no rows", where=where)
    if segment.start != length:
        raise EngineError(f"the segment starts at {segment.start}, the cache holds {length}", where=where)
    if segment.prefix < 0:
        raise EngineError(f"prefix {segment.prefix} is negative", where=where)
    # The rows of a prefix see its last column, so they can only be computed together.
    if segment.start < segment.prefix and (segment.start > 0 or segment.count < segment.prefix):
        raise EngineError(
            f"a prefix of {segment.prefix} must be computed in one segment from 0, "
            f"found rows {segment.start} to {segment.start + segment.count - 1}",
            where=where,
        )
