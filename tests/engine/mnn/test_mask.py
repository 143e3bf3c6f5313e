from __future__ import annotations

import pytest

from pocketglm.engine.mnn.interface import HIDDEN
from pocketglm.engine.mnn.mask import attention_mask
from pocketglm.engine.reference.attention import Visibility


def picture(visibility: Visibility, rows: int, capacity: int) -> list[str]:
    """One string a row: `x` where a column is seen."""
    mask = attention_mask(visibility, rows, capacity)
    assert mask.shape == (1, 1, rows, capacity + rows)
    assert ((mask == 0) | (mask == HIDDEN)).all()
    return ["".join("x" if value == 0 else "." for value in row) for row in mask[0, 0]]


@pytest.mark.parametrize(
    ("visibility", "rows", "capacity", "expected"),
    [
        (Visibility(), 3, 4, ["....x..", "....xx.", "....xxx"]),
        (Visibility(start=2), 2, 4, ["xx..x.", "xx..xx"]),
        (Visibility(start=4), 1, 4, ["xxxxx"]),
        (Visibility(prefix=2), 3, 2, ["..xx.", "..xx.", "..xxx"]),
        (Visibility(start=3, prefix=2), 1, 4, ["xxx.x"]),
        (Visibility(start=3, window=2), 2, 4, ["..x.x.", "....xx"]),
        (Visibility(start=3, window=1), 1, 4, ["....x"]),
    ],
)
def test_mask(visibility: Visibility, rows: int, capacity: int, expected: list[str]) -> None:
    assert picture(visibility, rows, capacity) == expected
