from __future__ import annotations

import numpy as np
import pytest

from pocketglm.engine.contract import Float32
from pocketglm.engine.reference import attention as module
from pocketglm.engine.reference.attention import Visibility, attention


def by_definition(queries: Float32, keys: Float32, values: Float32, see: Visibility) -> Float32:
    """One row, one head and one column at a time, in float64."""
    rows, heads, head_dim = queries.shape
    kv_heads, columns, _ = keys.shape
    output = np.zeros((rows, heads, head_dim))
    for row in range(rows):
        at = see.start + row
        low = 0 if see.window is None else at - see.window + 1
        visible = [c for c in range(columns) if low <= c <= at or c < see.prefix]
        for head in range(heads):
            kv = head * kv_heads // heads
            scores = keys[kv, visible].astype(np.float64) @ queries[row, head] / np.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            output[row, head] = weights @ values[kv, visible] / weights.sum()
    return output.reshape(rows, -1).astype(np.float32)


@pytest.mark.parametrize(
    "see",
    [
        Visibility(),
        Visibility(start=6),
        Visibility(prefix=9),
        Visibility(start=6, prefix=4),
        Visibility(window=4),
        Visibility(start=6, window=4),
        Visibility(window=1),
        Visibility(prefix=9, window=3),
        Visibility(start=6, window=100),
    ],
    ids=str,
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("rows_at_once", [1, 5, 256])
def test_matches_the_definition(
    see: Visibility, heads: int, kv_heads: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    generator = np.random.default_rng(0)
    rows, columns = 13, see.start + 13
    queries = generator.normal(0, 2, (rows, heads, 8)).astype(np.float32)
    keys, values = generator.normal(0, 2, (2, kv_heads, columns, 8)).astype(np.float32)
    found = attention(queries, keys, values, see)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(queries, keys, values, see), atol=2e-6)


def test_leading_axes_are_independent() -> None:
    generator = np.random.default_rng(0)
    queries = generator.normal(size=(2, 7, 4, 8)).astype(np.float32)
    keys, values = generator.normal(size=(2, 2, 2, 7, 8)).astype(np.float32)
    both = attention(queries, keys, values, Visibility(prefix=3))
    for path in range(2):
        alone = attention(queries[path], keys[path], values[path], Visibility(prefix=3))
        np.testing.assert_allclose(both[path], alone, atol=1e-6)


def test_large_scores_do_not_overflow() -> None:
    queries = np.full((3, 1, 4), 200, dtype=np.float32)
    keys = np.full((1, 3, 4), 200, dtype=np.float32)
    values = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    np.testing.assert_allclose(attention(queries, keys, values, Visibility())[0], values[0, 0])
