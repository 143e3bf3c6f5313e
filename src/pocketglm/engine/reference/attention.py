"""Grouped-query attention over cached columns.

Enters: the queries of consecutive rows of one sequence, and its keys and values. Leaves: the attended
values. Rows are taken a slice at a time, so that the scores never need more than a few megabytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.contract import Float32

SCORES_AT_ONCE = 1 << 22
"""Attention scores held at a time (16 MiB): about a CPU's last-level cache."""

ROWS_AT_ONCE = 256
"""Rows of a slice. A slice skips the columns after its last row, which a causal prompt never sees."""


@dataclass(frozen=True)
class Visibility:
    """Which columns the rows start, start + 1, ... of a sequence see.

    Row i sees columns i - window + 1 to i (0 to i without a window), and all those below `prefix`.
    """

    start: int = 0
    prefix: int = 0
    window: int | None = None

    def columns(self, first: int, last: int) -> tuple[int, int]:
        """The span of columns that rows first..last-1 (counted in the sequence) need."""
        keep_all = self.window is None or self.prefix > 0
        low = 0 if keep_all else max(0, first + 1 - (self.window or 0))
        return low, max(last, self.prefix)

    def hidden(self, first: int, last: int, low: int, high: int) -> NDArray[np.bool_]:
        """True where row first + r must not see column low + c: bool [rows, columns]."""
        rows = np.arange(first, last)[:, None]
        columns = np.arange(low, high)[None, :]
        hidden = columns > rows
        if self.window is not None:
            hidden |= columns <= rows - self.window
        return hidden & (columns >= self.prefix)


def attention(queries: Float32, keys: Float32, values: Float32, visibility: Visibility) -> Float32:
    """Softmax(Q K^T / sqrt(head_dim)) V for each head.

    queries [..., rows, heads, head_dim] of the rows from `visibility.start` on; keys and values
    [..., kv_heads, columns, head_dim] of all columns from 0, those rows included. Leading axes are
    independent. Returns [..., rows, heads * head_dim].
    """
    *lead, rows, heads, head_dim = queries.shape
    step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // (heads * keys.shape[-2])))
    output = np.empty((*lead, rows, heads * head_dim), dtype=np.float32)
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        first, last = visibility.start + begin, visibility.start + end
        low, high = visibility.columns(first, last)
        output[..., begin:end, :] = _attend(
            queries[..., begin:end, :, :],
            keys[..., low:high, :],
            values[..., low:high, :],
            visibility.hidden(first, last, low, high),
        )
    return output


def _attend(queries: Float32, keys: Float32, values: Float32, hidden: NDArray[np.bool_]) -> Float32:
    """One slice of rows; `hidden` is bool [rows, columns]. Query head h reads KV head h // group."""
    *lead, rows, heads, head_dim = queries.shape
    kv_heads, columns = keys.shape[-3:-1]
    scale = np.float32(1 / math.sqrt(head_dim))
    # [..., kv_heads, group * rows, head_dim]: the heads of a group share one matrix product
    grouped: Float32 = np.swapaxes(queries * scale, -2, -3).reshape(*lead, kv_heads, -1, head_dim)
    scores: Float32 = grouped @ np.swapaxes(keys, -1, -2)
    if hidden.any():
        by_row = scores.reshape(*lead, heads, rows, columns)
        np.copyto(by_row, np.float32(-np.inf), where=hidden)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed: Float32 = scores @ values
    mixed /= scores.sum(axis=-1, keepdims=True)
    by_head = mixed.reshape(*lead, heads, rows, head_dim)
    return np.swapaxes(by_head, -3, -2).reshape(*lead, rows, heads * head_dim)
