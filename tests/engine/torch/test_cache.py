from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.contract_specs import SPECS
from pocketglm.engine.contract import KVType
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.memory import PAGE_POSITIONS, cache_bytes
from pocketglm.errors import DeviceMemoryError

SPEC = SPECS["sliding_window"]
KVS: tuple[KVType, ...] = ("float32", "float16", "int8")
ERRORS = {"float32": 0.0, "float16": 2**-11, "int8": 0.5 / 127 + 1e-6}
"""Largest error, relative to the largest value of the row."""


def layout(kv: KVType) -> CacheLayout:
    return CacheLayout(SPEC, 2, kv, torch.device("cpu"))


def filled(kv: KVType, rows: np.ndarray, steps: tuple[int, ...]) -> SequenceCache:
    """A cache of rows [2 blocks, 2 sides, length, kv_heads, head_dim], appended in `steps`."""
    cache = SequenceCache(layout(kv))
    for count in steps:
        cache.reserve(count)
        part = rows[:, :, cache.length : cache.length + count]
        for block in range(2):
            cache.write(block, torch.from_numpy(part[block, 0]), torch.from_numpy(part[block, 1]))
        cache.commit(count)
    return cache


def random_rows(length: int) -> np.ndarray:
    shape = (2, 2, length, SPEC.num_kv_heads, SPEC.head_dim)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kv", KVS)
@pytest.mark.parametrize("steps", [(150,), (1, 62, 1, 1, 64, 21), (64, 86)], ids=str)
def test_holds_what_was_written(kv: KVType, steps: tuple[int, ...]) -> None:
    rows = random_rows(150)
    cache = filled(kv, rows, steps)
    assert sum(page.buffer.nbytes for page in cache.pages) == cache_bytes(SPEC, 2, 150, kv)
    for block in range(2):
        for side, found in enumerate(cache.read(block, 150)):
            expected = rows[block, side].transpose(1, 0, 2)
            limit = ERRORS[kv] * np.abs(expected).max(axis=-1, keepdims=True)
            assert (np.abs(found.numpy() - expected) <= limit).all()


@pytest.mark.parametrize("kv", KVS)
def test_saved_and_copied_are_the_same(kv: KVType) -> None:
    cache = filled(kv, random_rows(130), (130,))
    state = cache.save()
    assert state.keys.dtype == (np.float16 if kv == "float16" else np.float32)
    restored, copied = SequenceCache(layout(kv)), SequenceCache(layout(kv))
    restored.restore(state)
    copied.copy_from(cache, 130)
    limit = 1e-6 if kv == "int8" else 0
    for twin in (restored, copied):
        for found, expected in zip(twin.read(1, 130), cache.read(1, 130), strict=True):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=limit)
    copied.pages[0].buffer.zero_()
    assert cache.save().keys.tobytes() == state.keys.tobytes()


def test_a_row_of_zeros_stays_zero_as_int8() -> None:
    cache = filled("int8", np.zeros((2, 2, 3, SPEC.num_kv_heads, SPEC.head_dim), np.float32), (3,))
    assert not cache.save().keys.any()


def test_cutting_frees_pages_but_one() -> None:
    cache = filled("float16", random_rows(5 * PAGE_POSITIONS), (5 * PAGE_POSITIONS,))
    cache.truncate(PAGE_POSITIONS + 1)
    assert len(cache.pages) == 3
    cache.trim()
    assert len(cache.pages) == 2


def test_growth_that_fails_leaves_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled("float16", random_rows(10), (10,))
    made = []

    def fail_at_third(self: CacheLayout) -> object:
        made.append(self)
        if len(made) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return object()

    monkeypatch.setattr(CacheLayout, "new_page", fail_at_third)
    with pytest.raises(DeviceMemoryError, match="KV cache of 330 positions"):
        cache.reserve(320)
    assert (len(cache.pages), cache.length) == (1, 10)
