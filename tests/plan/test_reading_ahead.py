"""Blocks read ahead of their turn: never faster than reading or computing alone, and as the buffers allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketglm.plan.reading_ahead import Step, pass_seconds

SECONDS = st.floats(0.01, 10)
PASS = st.lists(st.builds(Step, SECONDS, st.just(0.0) | SECONDS), min_size=1, max_size=12)


def alternating(compute_s: float, read_s: float, count: int = 4) -> list[Step]:
    return [Step(compute_s), Step(compute_s, read_s)] * count


def test_the_slower_of_reading_and_computing_counts() -> None:
    assert pass_seconds(alternating(1.0, 0.0), 0.0) == pytest.approx(8)
    assert pass_seconds(alternating(1.0, 1.9), 0.0) == pytest.approx(8)
    assert pass_seconds(alternating(1.0, 5.0), 0.0) == pytest.approx(4 * 5)


def test_a_pass_that_reads_one_block_begins_with_it_read() -> None:
    assert pass_seconds([Step(1.0, 9.0), Step(10.0)], 0.0) == pytest.approx(11)


def test_only_two_buffers_are_filled_ahead() -> None:
    """All blocks that are read come last: two are there after the long step, the third begins when the
    first is computed."""
    steps = [Step(100.0), Step(1.0, 10.0), Step(1.0, 10.0), Step(1.0, 10.0)]
    assert pass_seconds(steps, 0.0) == pytest.approx(100 + 1 + 10 + 1)


def test_both_are_slower_while_both_are_at_work() -> None:
    """Half as fast: computing takes 8 seconds twice as long, in which half of 16 seconds are read."""
    assert pass_seconds(alternating(1.0, 10.0), 0.5) == pytest.approx(40 + 8)
    assert pass_seconds(alternating(1.0, 10.0), 0.2) == pytest.approx(40 + 8 * 0.2 / 0.8)
    assert pass_seconds([Step(10.0, 2.0)], 0.5) == pytest.approx(10 + 2)
    assert pass_seconds(alternating(1.0, 0.0), 0.5) == pytest.approx(8)


@given(steps=PASS, crowding=st.floats(0, 0.9))
def test_no_pass_is_faster_than_its_parts_or_slower_than_their_sum(
    steps: list[Step], crowding: float
) -> None:
    computing, reading = sum(step.compute_s for step in steps), sum(step.read_s for step in steps)
    alone = pass_seconds(steps, 0.0)
    assert max(computing, reading) * 0.999 <= alone <= (computing + reading) * 1.001
    assert alone * 0.999 <= pass_seconds(steps, crowding)
