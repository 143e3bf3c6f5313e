"""What happens to a row between the fused projection and attention, in one kernel.

Enters: q, k and v of new rows. Leaves: queries, normed (where the model does) and rotated; keys, likewise,
and values lie in the pages of the cache, in its type. The oracle is `plain_pass.PlainPass`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pocketglm.engine.torch.cache import CacheLayout
from pocketglm.engine.torch.kernels.launch import FUSED, next_power_of_two
from pocketglm.engine.torch.memory import PAGE_POSITIONS
from pocketglm.engine.torch.weights import DeviceNorm

SEGMENT_FIELDS = 4
"""Numbers of a segment before its page addresses: first row of the pass, start, rows, prefix."""


def rotate_write(
    layout: CacheLayout,
    block: int,
    qkv: Tensor,
    rotation: Tensor,
    segments: Tensor,
    row_segments: Tensor,
    q_norm: DeviceNorm | None,
    k_norm: DeviceNorm | None,
) -> Tensor:
    """Queries float32 [rows, heads, head_dim] of qkv [rows, q + 2 kv]; see the module.

    rotation is float32 [2 (cosine, sine), rows, axes * pairs]; segments int64 [segments, SEGMENT_FIELDS +
    pages]; row_segments int32 [rows], the segment that a row belongs to.
    """
    spec, rows = layout.spec, qkv.shape[0]
    queries = torch.empty(rows, spec.num_heads, spec.head_dim, dtype=torch.float32, device=qkv.device)
    _rotate_write[(rows, spec.num_heads + 2 * spec.num_kv_heads)](
        qkv,
        rotation[0],
        rotation[1],
        segments,
        row_segments,
        q_norm and q_norm.weight,
        k_norm and k_norm.weight,
        queries,
        segments.shape[1],
        block,
        layout.blocks,
        spec.num_heads,
        spec.num_kv_heads,
        spec.head_dim,
        spec.norm_eps,
        KV=layout.kv,
        INTERLEAVED=spec.rotary.kind == "interleaved",
        TURNED=spec.rotary.dimensions,
        PAIRS=spec.rotary.dimensions // (2 * spec.rotary.axes),
        PAGE=PAGE_POSITIONS,
        FIELDS=SEGMENT_FIELDS,
        BLOCK=next_power_of_two(spec.head_dim),
        num_warps=1,
        **FUSED,
    )
    return queries


@triton.jit
def page_codes(address: tl.tensor, KV: tl.constexpr) -> tl.tensor:
    """The codes of the page at an address, as a pointer to the cache's type. Pages lie on 16 bytes."""
    if KV == "float32":
        codes = address.to(tl.pointer_type(tl.float32))
    elif KV == "float16":
        codes = address.to(tl.pointer_type(tl.float16))
    else:
        codes = address.to(tl.pointer_type(tl.int8))
    return tl.multiple_of(codes, 16)


@triton.jit
def page_scales(
    address: tl.tensor, blocks: int, kv_heads: int, head_dim: int, PAGE: tl.constexpr
) -> tl.tensor:
    """The float32 scales of an int8 page, which follow its codes."""
    size = blocks * 2 * kv_heads * PAGE * head_dim
    return tl.multiple_of((address + size).to(tl.pointer_type(tl.float32)), 4)


@triton.jit(do_not_specialize=["block"])
def _rotate_write(
    qkv: tl.tensor,
    cosine: tl.tensor,
    sine: tl.tensor,
    segments: tl.tensor,
    row_segments: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    queries: tl.tensor,
    fields: int,
    block: int,
    blocks: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    eps: float,
    KV: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    TURNED: tl.constexpr,
    PAIRS: tl.constexpr,
    PAGE: tl.constexpr,
    FIELDS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One head of one row: a query, a key or a value."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    source = qkv + (row * (heads + 2 * kv_heads) + head) * head_dim
    place = tl.arange(0, BLOCK)
    inside = place < head_dim
    x = tl.load(source + place, mask=inside, other=0.0)
    if head < heads + kv_heads:
        if INTERLEAVED:
            partner, first, pair = place ^ 1, place % 2 == 0, place // 2
        else:
            first = place % (2 * PAIRS) < PAIRS
            partner = tl.where(first, place + PAIRS, place - PAIRS)
            pair = place // (2 * PAIRS) * PAIRS + place % PAIRS
        turned = place < TURNED
        other = tl.load(source + partner, mask=turned, other=0.0)
        if q_norm is not None:
            scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / head_dim + eps)
            weight = tl.where(head < heads, q_norm, k_norm)
            x *= scale * tl.load(weight + place, mask=inside, other=0.0)
            other *= scale * tl.load(weight + partner, mask=turned, other=0.0)
        angle = row * (TURNED // 2) + pair
        cos = tl.load(cosine + angle, mask=turned, other=1.0)
        sin = tl.load(sine + angle, mask=turned, other=0.0)
        x = x * cos + tl.where(first, -other, other) * sin
    if head < heads:
        tl.store(queries + (row * heads + head) * head_dim + place, x, mask=inside)
    else:
        segment = segments + tl.load(row_segments + row).to(tl.int64) * fields
        position = tl.load(segment + 1) + row - tl.load(segment)
        address = tl.load(segment + FIELDS + position // PAGE)
        side, kv_head = (head - heads) // kv_heads, (head - heads) % kv_heads
        line = ((block * 2 + side).to(tl.int64) * kv_heads + kv_head) * PAGE + position % PAGE
        if KV == "int8":
            scale = tl.max(tl.abs(x), axis=0) / 127.0
            tl.store(page_scales(address, blocks, kv_heads, head_dim, PAGE) + line, scale)
            # 1.5 * 2^23 added and taken away rounds to the nearest integer, ties to the even one
            x = (x / tl.where(scale > 0.0, scale, 1.0) + 12582912.0) - 12582912.0
        codes = page_codes(address, KV)
        tl.store(codes + line * head_dim + place, x.to(codes.dtype.element_ty), mask=inside)
