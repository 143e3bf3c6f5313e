"""Attention over the pages of KV caches, which are read where they lie.

Enters: queries of a pass, and the addresses of its sequences' pages. Leaves: attended values. Softmax is
taken piece by piece with a running maximum (FlashAttention: Dao et al., 2022, arXiv:2205.14135). Where a
pass has few rows, the columns of a row are split over several programs, whose results `_combine` joins.
The oracle is `plain.attention`.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pocketglm.engine.torch.cache import CacheLayout
from pocketglm.engine.torch.kernels.launch import FUSED, next_power_of_two, processors
from pocketglm.engine.torch.kernels.rotary import SEGMENT_FIELDS, page_codes, page_scales
from pocketglm.engine.torch.memory import PAGE_POSITIONS

LEAST_TILE = 16
"""Rows and heads of one program where each sequence has one row: the least that a tensor core takes."""

LARGEST_TILE = 64
"""The same for a prompt, where the cache's type lets tensor cores multiply."""

COLUMN_BYTES = 16 << 10
"""Keys that a program holds at a time, and values: with the queries and two stages of loading they stay
within the 99 KiB of shared memory that consumer GPUs have."""

MOST_SPLITS = 32
"""Programs that share a row: joining more costs more than it saves."""


def tile_rows(layout: CacheLayout, most_rows: int) -> int:
    """Rows of one program, in a pass whose longest segment has `most_rows`; the rest of its tile are the
    query heads that share a KV head."""
    group = next_power_of_two(layout.spec.num_heads // layout.spec.num_kv_heads)
    tile = LEAST_TILE if most_rows == 1 or layout.kv == "float32" else LARGEST_TILE
    return max(1, tile // group)


def splits(layout: CacheLayout, tiles: int, pages: int) -> int:
    """Programs that share one tile's columns, so that two lie on every processor."""
    programs = tiles * layout.spec.num_kv_heads
    return max(1, min(-(-2 * processors(layout.device) // programs), pages, MOST_SPLITS))


def columns_at_once(layout: CacheLayout) -> int:
    """Columns of one step: a page, or less where heads are wide."""
    column = next_power_of_two(layout.spec.head_dim) * (4 if layout.kv == "float32" else 2)
    return max(16, min(PAGE_POSITIONS, COLUMN_BYTES // column))


def attention(
    layout: CacheLayout,
    block: int,
    window: int | None,
    queries: Tensor,
    segments: Tensor,
    tiles: Tensor,
    parts: int,
    rows_at_once: int,
) -> Tensor:
    """Softmax(Q K^T / sqrt(head_dim)) V, float32 [rows, heads * head_dim], over the pages of `segments`.

    queries is float32 [rows, heads, head_dim], segments as for `rotate_write`, tiles int32 [tiles, 2]: a
    segment and the first of its `rows_at_once` rows; `parts` programs share a tile's columns.
    """
    spec, rows = layout.spec, queries.shape[0]
    size, heads, kv_heads = spec.head_dim, spec.num_heads, spec.num_kv_heads
    output = torch.empty(rows, heads * size, dtype=torch.float32, device=queries.device)
    sums = peaks = output
    if parts > 1:
        sums = torch.empty(parts, rows, heads, size, dtype=torch.float32, device=queries.device)
        peaks = torch.empty(parts, rows, heads, 2, dtype=torch.float32, device=queries.device)
    group = heads // kv_heads
    head_tile = next_power_of_two(group)
    _attention[(tiles.shape[0], kv_heads, parts)](
        queries,
        segments,
        tiles,
        sums,
        peaks,
        rows,
        segments.shape[1],
        block,
        layout.blocks,
        heads,
        kv_heads,
        size,
        window or 0,
        math.log2(math.e) / math.sqrt(size),
        KV=layout.kv,
        WINDOWED=window is not None,
        GROUP=group,
        GROUP_TILE=head_tile,
        ROWS=rows_at_once,
        TILE=max(LEAST_TILE, rows_at_once * head_tile),
        PARTS=parts,
        COLUMNS=columns_at_once(layout),
        PAGE=PAGE_POSITIONS,
        FIELDS=SEGMENT_FIELDS,
        BLOCK=max(16, next_power_of_two(size)),
        num_warps=4,
        num_stages=1 if layout.kv == "float32" else 2,
        **FUSED,
    )
    if parts > 1:
        lines = rows * heads
        block_size, parts_tile = next_power_of_two(size), next_power_of_two(parts)
        _combine[(lines,)](
            sums, peaks, output, lines, size, parts, PARTS=parts_tile, BLOCK=block_size, num_warps=1, **FUSED
        )
    return output


@triton.jit(do_not_specialize=["rows", "block", "window"])
def _attention(
    queries: tl.tensor,
    segments: tl.tensor,
    tiles: tl.tensor,
    sums: tl.tensor,  # [PARTS, rows, heads, head_dim], not divided yet; the output where there is one part
    peaks: tl.tensor,  # [PARTS, rows, heads, 2]: the greatest score and the sum of powers
    rows: int,
    fields: int,
    block: int,
    blocks: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    window: int,
    scale: float,  # scores are powers of two
    KV: tl.constexpr,
    WINDOWED: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    FIELDS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Some rows of one segment, the heads of one KV head, a part of the columns."""
    tile, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    segment = segments + tl.load(tiles + 2 * tile).to(tl.int64) * fields
    begin = tl.load(tiles + 2 * tile + 1)
    first, start = tl.load(segment), tl.load(segment + 1).to(tl.int32)
    count, prefix = tl.load(segment + 2).to(tl.int32), tl.load(segment + 3).to(tl.int32)
    line = tl.arange(0, TILE)
    row = begin + line // GROUP_TILE
    known = (row < count) & (line // GROUP_TILE < ROWS) & (line % GROUP_TILE < GROUP)
    head = kv_head * GROUP + line % GROUP_TILE
    target = (first + row) * heads + head
    place = tl.arange(0, BLOCK)
    inside = place < head_dim
    query = tl.load(
        queries + target[:, None] * head_dim + place[None, :],
        mask=known[:, None] & inside[None, :],
        other=0.0,
    )
    query *= scale
    if KV != "float32":
        query = query.to(tl.float16)
    high = tl.maximum(start + tl.minimum(begin + ROWS, count), prefix)
    low = 0
    if WINDOWED:
        low = tl.where(prefix > 0, 0, tl.maximum(0, start + begin + 1 - window))
    low_step = low // COLUMNS
    steps = tl.cdiv(high, COLUMNS) - low_step
    share = tl.cdiv(steps, PARTS)
    first_step = low_step + part * share
    last_step = tl.minimum(first_step + share, low_step + steps)

    peak = tl.full([TILE], float("-inf"), dtype=tl.float32)
    total = tl.zeros([TILE], dtype=tl.float32)
    mixed = tl.zeros([TILE, BLOCK], dtype=tl.float32)
    offset = tl.arange(0, COLUMNS)
    first_line = (block * 2 * kv_heads + kv_head) * PAGE
    for step in range(first_step, last_step):
        column = step * COLUMNS + offset
        address = tl.load(segment + FIELDS + step * COLUMNS // PAGE)
        codes = page_codes(address, KV)
        key_line = first_line + step * COLUMNS % PAGE + offset
        value_line = key_line + kv_heads * PAGE
        filled = (column < high)[:, None] & inside[None, :]  # past the end a page may hold anything
        keys = tl.load(codes + key_line.to(tl.int64)[:, None] * head_dim + place, mask=filled, other=0)
        values = tl.load(codes + value_line.to(tl.int64)[:, None] * head_dim + place, mask=filled, other=0)
        if KV == "int8":
            scales = page_scales(address, blocks, kv_heads, head_dim, PAGE)
            key_scale = tl.load(scales + key_line, mask=column < high, other=0.0)
            value_scale = tl.load(scales + value_line, mask=column < high, other=0.0)
            keys = (keys.to(tl.float32) * key_scale[:, None]).to(tl.float16)
            values = (values.to(tl.float32) * value_scale[:, None]).to(tl.float16)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee")  # [TILE, COLUMNS]
        visible = column[None, :] <= start + row[:, None]
        if WINDOWED:
            visible &= column[None, :] > start + row[:, None] - window
        visible = (visible | (column < prefix)[None, :]) & (column < high)[None, :]
        scores = tl.where(visible, scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, axis=1))
        level = tl.where(new_peak == float("-inf"), 0.0, new_peak)  # a row that sees nothing so far
        powers = tl.exp2(scores - level[:, None])
        decay = tl.exp2(peak - level)
        total = total * decay + tl.sum(powers, axis=1)
        mixed = tl.dot(powers.to(values.dtype), values, mixed * decay[:, None], input_precision="ieee")
        peak = new_peak
    if PARTS == 1:
        mixed /= tl.where(known, total, 1.0)[:, None]
    else:
        target += part * rows * heads
        tl.store(peaks + 2 * target, peak, mask=known)
        tl.store(peaks + 2 * target + 1, total, mask=known)
    tl.store(sums + target[:, None] * head_dim + place, mixed, mask=known[:, None] & inside[None, :])


@triton.jit(do_not_specialize=["lines"])
def _combine(
    sums: tl.tensor,
    peaks: tl.tensor,
    output: tl.tensor,
    lines: int,
    head_dim: int,
    parts: int,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One head of one row: its parts, brought to one maximum and added."""
    line = tl.program_id(0).to(tl.int64)
    part, place = tl.arange(0, PARTS), tl.arange(0, BLOCK)
    index = part.to(tl.int64) * lines + line
    peak = tl.load(peaks + 2 * index, mask=part < parts, other=float("-inf"))
    weight = tl.exp2(peak - tl.max(peak, axis=0))
    total = tl.sum(weight * tl.load(peaks + 2 * index + 1, mask=part < parts, other=0.0), axis=0)
    wanted = (part < parts)[:, None] & (place < head_dim)[None, :]
    mixed = tl.load(sums + index[:, None] * head_dim + place[None, :], mask=wanted, other=0.0)
    result = tl.sum(mixed * weight[:, None], axis=0) / total
    tl.store(output + line * head_dim + place, result, mask=place < head_dim)
