from __future__ import annotations

import numpy as np
import pytest

from engine.contract_specs import SPECS
from engine.mnn.graphs import need_mnn
from pocketglm.engine.mnn.cache import SequenceCache

SPEC = SPECS["grouped_interleaved_partial_bias"]


@pytest.fixture
def cache() -> SequenceCache:
    need_mnn()
    return SequenceCache(SPEC, blocks=2)


def rows(count: int, seed: int = 0) -> np.ndarray:
    shape = (2, SPEC.num_kv_heads, count, SPEC.head_dim)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fill(cache: SequenceCache, count: int) -> None:
    cache.reserve(cache.length + count)
    for block in range(2):
        cache.write(block, cache.length, rows(count, block))
    cache.commit(cache.length + count)


@pytest.mark.parametrize(
    ("columns", "capacity"), [(1, 64), (64, 64), (65, 128), (256, 256), (257, 512), (600, 768)]
)
def test_capacity_grows_in_steps(cache: SequenceCache, columns: int, capacity: int) -> None:
    cache.reserve(columns)
    assert cache.capacity == capacity
    assert cache.variable(0).shape == [2, SPEC.num_kv_heads, capacity, SPEC.head_dim]


def test_growing_keeps_the_content(cache: SequenceCache) -> None:
    fill(cache, 50)
    before = cache.save()
    cache.reserve(1000)
    after = cache.save()
    assert (before.keys == after.keys).all()
    assert (before.values == after.values).all()


def test_mnn_sees_what_is_written(cache: SequenceCache) -> None:
    fill(cache, 3)
    assert (np.array(cache.variable(1).read())[:, :, :3] == rows(3, 1)).all()


def test_truncated_columns_are_zero(cache: SequenceCache) -> None:
    fill(cache, 10)
    cache.truncate(4)
    assert cache.length == 4
    assert not np.array(cache.variable(0).read())[:, :, 4:].any()


def test_empty_cache_is_saved_and_restored(cache: SequenceCache) -> None:
    state = cache.save()
    assert state.keys.shape == (2, 0, SPEC.num_kv_heads, SPEC.head_dim)
    cache.restore(state)
    assert cache.length == 0


def test_copies_are_independent(cache: SequenceCache) -> None:
    fill(cache, 8)
    copy = SequenceCache(SPEC, blocks=2)
    copy.copy_from(cache, 5)
    cache.truncate(0)
    assert (copy.save().keys[1] == rows(8, 1)[0, :, :5].transpose(1, 0, 2)).all()
