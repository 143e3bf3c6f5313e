from __future__ import annotations

import numpy as np
import pytest

from engine.contract_specs import SPECS
from pocketglm.engine.positions import PositionTracker
from pocketglm.errors import InputError

GLM = SPECS["prefix_2d_alpha_layernorm_gelu"]
MASK, GMASK, SOP = 40, 41, 42


def test_sequential_positions_go_on() -> None:
    tracker = PositionTracker(SPECS["plain"])
    for expected, count in (([0, 1, 2], 3), ([3], 1), ([4, 5], 2)):
        positions, prefix = tracker.advance([9] * count)
        assert positions.dtype == np.int32
        assert positions.tolist() == [expected]
        assert prefix == 0
    assert (tracker.length, tracker.prefix) == (6, 0)


@pytest.mark.parametrize("mask", [GMASK, MASK])
def test_glm_positions(mask: int) -> None:
    tracker = PositionTracker(GLM)
    positions, prefix = tracker.advance([5, 6, mask, 8, SOP, 9])
    assert positions.tolist() == [[0, 1, 2, 3, 2, 2], [0, 0, 0, 0, 1, 2]]
    assert prefix == 4
    positions, prefix = tracker.advance([10, 11])
    assert positions.tolist() == [[2, 2], [3, 4]]
    assert positions.dtype == np.int32
    assert prefix == 4


def test_gmask_goes_before_mask() -> None:
    positions, _ = PositionTracker(GLM).advance([MASK, 5, GMASK, SOP])
    assert positions[0].tolist() == [0, 1, 2, 2]


def test_later_sop_is_an_ordinary_token() -> None:
    tracker = PositionTracker(GLM)
    tracker.advance([GMASK, SOP])
    positions, prefix = tracker.advance([GMASK, SOP])
    assert positions.tolist() == [[0, 0], [2, 3]]
    assert prefix == 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [([5, GMASK], "lack <sop>"), ([5, SOP, GMASK], r"no \[gMASK\]"), ([SOP], r"no \[gMASK\]")],
)
def test_prompts_without_a_context_are_refused(ids: list[int], message: str) -> None:
    tracker = PositionTracker(GLM)
    with pytest.raises(InputError, match=message) as error:
        tracker.advance(ids)
    assert error.value.hint is not None
    assert "41" in error.value.hint
    assert tracker.length == 0
    assert tracker.advance([GMASK, SOP])[1] == 1


@pytest.mark.parametrize("name", ["plain", "prefix_2d_alpha_layernorm_gelu"])
def test_no_tokens_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="no tokens"):
        PositionTracker(SPECS[name]).advance([])


def test_truncate() -> None:
    tracker = PositionTracker(GLM)
    tracker.advance([5, 6, GMASK, SOP, 9, 10])
    tracker.truncate(4)
    assert tracker.advance([11])[0].tolist() == [[2], [2]]
    tracker.truncate(3)
    assert tracker.advance([SOP])[0].tolist() == [[2], [1]]
    with pytest.raises(InputError, match="see one another"):
        tracker.truncate(2)
    for length in (-1, 5):
        with pytest.raises(InputError, match="cannot truncate"):
            tracker.truncate(length)
    assert tracker.length == 4
    tracker.truncate(0)
    assert tracker.advance([GMASK, SOP])[1] == 1


def test_copy_is_independent() -> None:
    tracker = PositionTracker(GLM)
    tracker.advance([5, GMASK, SOP])
    twin = tracker.copy()
    tracker.advance([1, 2])
    assert (twin.length, twin.prefix) == (3, 2)
    assert twin.advance([1])[0].tolist() == [[1], [2]]
    assert tracker.length == 5
