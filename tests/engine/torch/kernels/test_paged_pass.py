"""Rotation, the cache's writing and attention against plain PyTorch, which gathers the pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from engine.contract_specs import SPECS
from pocketglm.engine.contract import Batch, KVType, Segment
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.plain_pass import PlainPass
from pocketglm.engine.torch.weights import DeviceNorm, DeviceWeights

BLOCKS, BLOCK = 2, 1
ERRORS: dict[KVType, float] = {"float32": 5e-6, "float16": 3e-3, "int8": 1e-2}
"""Of the largest value. Other caches than float32 meet the tensor cores in float16; an int8 code may come
out one higher or lower."""


@dataclass(frozen=True)
class Case:
    """Segments as (positions in the cache, new rows, prefix)."""

    name: str
    segments: tuple[tuple[int, int, int], ...]
    window: int | None = None


DECODE = Case("decode", ((0, 1, 0), (63, 1, 0), (130, 1, 0), (64, 1, 9)))
CASES = (
    DECODE,
    Case("decode-window", ((70, 1, 0), (200, 1, 0), (3, 1, 0), (150, 1, 7)), window=66),
    Case("prompts", ((60, 9, 0), (0, 3, 0), (5, 1, 0))),
    Case("prompt-window", ((100, 20, 0), (0, 6, 0)), window=4),
    Case("prefix", ((0, 20, 17), (66, 2, 65))),
)


def batch_of(axes: int, case: Case) -> Batch:
    generator = np.random.default_rng(3)
    return Batch(
        tuple(
            Segment(i, start, generator.integers(0, 500, (axes, count)).astype(np.int32), prefix)
            for i, (start, count, prefix) in enumerate(case.segments)
        )
    )


def filled(layout: CacheLayout, batch: Batch) -> dict[int, SequenceCache]:
    """Caches of seeded rows, with room for the batch; what is not written yet is not a number."""
    spec, generator = layout.spec, torch.Generator().manual_seed(5)
    caches = {}
    for segment in batch.segments:
        cache = caches[segment.sequence] = SequenceCache(layout)
        cache.reserve(segment.start + segment.count)
        for page in cache.pages:
            page.buffer.fill_(0xFF)
        for block in range(BLOCKS):
            shape = (segment.start, spec.num_kv_heads, spec.head_dim)
            keys, values = (torch.randn(shape, generator=generator).to(layout.device) for _ in range(2))
            cache.write(block, keys, values)
        cache.commit(segment.start)
    return caches


def compare(device: torch.device, spec_name: str, kv: KVType, case: Case) -> None:
    from pocketglm.engine.torch.kernels.paged_pass import PagedPass

    spec = SPECS[spec_name]
    layout = CacheLayout(spec, BLOCKS, kv, device)
    batch = batch_of(spec.rotary.axes, case)
    generator = torch.Generator().manual_seed(6)
    qkv = torch.randn(batch.rows, spec.q_size + 2 * spec.kv_size, generator=generator).to(device)
    names = ("attention.q_norm", "attention.k_norm") if spec.qk_norm else ()
    norms = {
        name: DeviceNorm(torch.rand(spec.head_dim, generator=generator).to(device), None) for name in names
    }
    weights = DeviceWeights({}, norms, ())
    caches = [filled(layout, batch) for _ in range(2)]
    found = PagedPass.of(layout, batch, caches[0]).attend(qkv.clone(), weights, BLOCK, case.window)
    expected = PlainPass.of(layout, batch, caches[1]).attend(qkv, weights, BLOCK, case.window)
    assert (found - expected).abs().max() <= ERRORS[kv] * expected.abs().max()
    compare_caches(batch, kv, *caches)


def compare_caches(batch: Batch, kv: KVType, *caches: dict[int, SequenceCache]) -> None:
    for segment in batch.segments:
        read = [cache[segment.sequence].read(BLOCK, segment.start + segment.count) for cache in caches]
        for found, expected in zip(*read, strict=True):
            limit = {"float32": 1e-6, "float16": 2**-10, "int8": 1.01 / 127}[kv]
            assert (found - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attends_over_pages(device: torch.device, case: Case, kv: KVType) -> None:
    compare(device, "grouped_interleaved_partial_bias", kv, case)


@pytest.mark.parametrize(
    "name", ["prefix_2d_alpha_layernorm_gelu", "one_kv_head_qk_norm_wide_heads", "llama3_scaling_odd_sizes"]
)
def test_takes_every_form_of_heads(device: torch.device, name: str) -> None:
    """Two axes; one KV head, norms of heads and wide ones; three query heads for a KV head of ten."""
    compare(device, name, "float16", DECODE)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_splits_do_not_matter(device: torch.device, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from pocketglm.engine.torch.kernels import paged_pass

    monkeypatch.setattr(paged_pass, "splits", lambda layout, tiles, pages: parts)
    compare(device, "sliding_window", "float16", DECODE)


@pytest.mark.parametrize("name", ["decode-window", "prefix"])
def test_takes_pages_in_pieces(device: torch.device, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide heads need."""
    pytest.importorskip("triton")
    from pocketglm.engine.torch.kernels import attention

    monkeypatch.setattr(attention, "COLUMN_BYTES", 1)
    (case,) = (case for case in CASES if case.name == name)
    compare(device, "sliding_window", "float16", case)


@pytest.mark.parametrize(
    ("most_rows", "tile", "heads"), [(1, 8, (4, 2)), (200, 32, (4, 2)), (1, 1, (96, 4)), (9, 2, (96, 4))]
)
def test_tiles_hold_the_heads_of_a_kv_head(most_rows: int, tile: int, heads: Sequence[int]) -> None:
    pytest.importorskip("triton")
    from dataclasses import replace

    from pocketglm.engine.torch.kernels.attention import tile_rows

    spec = replace(SPECS["plain"], num_heads=heads[0], num_kv_heads=heads[1])
    assert tile_rows(CacheLayout(spec, 1, "float16", torch.device("cpu")), most_rows) == tile
