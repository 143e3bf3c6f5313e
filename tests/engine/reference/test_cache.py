from __future__ import annotations

import numpy as np

from engine.contract_specs import SPECS
from pocketglm.engine.contract import Float32
from pocketglm.engine.reference.cache import FIRST_CAPACITY, SequenceCache

SPEC = SPECS["grouped_interleaved_partial_bias"]


def rows(count: int, seed: int) -> tuple[Float32, Float32]:
    shape = (2, count, SPEC.num_kv_heads, SPEC.head_dim)
    keys, values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return keys, values


def append(cache: SequenceCache, count: int, seed: int) -> tuple[Float32, Float32]:
    keys, values = rows(count, seed)
    cache.reserve(count)
    for block in range(2):
        cache.write(block, keys + block, values + block)
    cache.commit(count)
    return keys, values


def test_content_survives_growth() -> None:
    cache = SequenceCache(SPEC, 2)
    parts = [
        append(cache, count, seed) for seed, count in enumerate((1, FIRST_CAPACITY, 3, 4 * FIRST_CAPACITY))
    ]
    state = cache.save()
    assert cache.length == state.length == 5 * FIRST_CAPACITY + 4
    for block in range(2):
        np.testing.assert_array_equal(state.keys[block], np.concatenate([k for k, _ in parts]) + block)
        np.testing.assert_array_equal(state.values[block], np.concatenate([v for _, v in parts]) + block)


def test_rows_that_are_not_committed_do_not_count() -> None:
    cache = SequenceCache(SPEC, 2)
    append(cache, 5, 0)
    before = cache.save()
    cache.reserve(100)
    keys, values = rows(100, 1)
    all_keys, _ = cache.write(0, keys, values)
    assert all_keys.shape == (SPEC.num_kv_heads, 105, SPEC.head_dim)
    assert cache.length == 5
    np.testing.assert_array_equal(cache.save().keys, before.keys)


def test_appending_reallocates_rarely() -> None:
    cache = SequenceCache(SPEC, 2)
    addresses = set()
    for step in range(1000):
        append(cache, 1, step)
        addresses.add(cache._keys[0].__array_interface__["data"][0])
    assert len(addresses) <= 6
