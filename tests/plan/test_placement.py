"""Placements: checks, runs, the text form, and files that are not what they should be."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketglm.errors import InputError
from pocketglm.plan.placement import PLACES, Placement, Run

PLACE_LISTS = st.lists(st.sampled_from(PLACES), min_size=1, max_size=40).map(tuple)
PLACEMENTS = st.builds(
    Placement,
    PLACE_LISTS,
    head=st.sampled_from(["gpu", "ram"]),
    kv=st.sampled_from(["float32", "float16", "int8"]),
    context=st.none() | st.integers(1, 2**20),
    gpu_backend=st.none() | st.just("cuda:0"),
    memory=st.none() | st.integers(1, 2**40),
)


def test_runs_join_what_one_engine_computes() -> None:
    placement = Placement.parse("gpu:0-1,ram:2-3,disk:4,ram:5,gpu:6", cpu_backend="cpu", gpu_backend="cuda")
    assert placement.runs() == (
        Run(range(0, 2), "gpu", "torch", "cuda"),
        Run(range(2, 6), "ram", "native", "cpu", frozenset({4})),
        Run(range(6, 7), "gpu", "torch", "cuda"),
    )


@given(PLACEMENTS)
def test_runs_cover_every_block_once_and_alternate(placement: Placement) -> None:
    runs = placement.runs()
    assert [index for run in runs for index in run.blocks] == list(range(len(placement.blocks)))
    assert all(first.place != second.place for first, second in itertools.pairwise(runs))
    on_disk = {index for index, place in enumerate(placement.blocks) if place == "disk"}
    assert frozenset().union(*(run.streamed for run in runs)) == on_disk


@given(PLACEMENTS)
def test_json_and_text_give_the_placement_back(placement: Placement) -> None:
    assert Placement.from_json(placement.to_json()) == placement
    assert Placement.from_json(json.dumps({"plan": 1, "placement": placement.to_dict()})) == placement
    again = Placement.parse(placement.text)
    assert (again.blocks, again.head) == (placement.blocks, placement.head)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no part of a placement"),
        ("gpu:0-3,vram:4", "'vram:4' is no part"),
        ("gpu:0-3,ram:3-5", "block 3 twice"),
        ("gpu:0-3,ram:5", "leaves out block 4"),
        ("gpu:3-0", "3-0 is no range"),
        ("gpu:0-9999", "0-9999 is no range"),
        ("gpu:0,ram:head,gpu:head", "the head twice"),
        ("gpu:0,disk:head", "head's place is 'disk'"),
        ("ram:head", "1 to 4096 blocks"),
    ],
)
def test_text_that_is_no_placement(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Placement.parse(text)


GOOD = Placement(("gpu", "ram")).to_dict()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": "pocketglm-placement-0"}, "expected pocketglm-placement-1"),
        ({"format": None}, "format is None"),
        ({"extra": 1}, "unknown fields: 'extra'"),
        ({"blocks": "gpu"}, "blocks are no list"),
        ({"blocks": []}, "1 to 4096 blocks"),
        ({"blocks": ["gpu"] * 5000}, "1 to 4096 blocks"),
        ({"blocks": ["gpu", ["ram"]]}, r"block 1 is at \['ram'\]"),
        ({"blocks": ["gpu", "x" * 10**6]}, "block 1 is at 'xxx"),
        ({"head": "disk"}, "head's place is 'disk'"),
        ({"head": ["gpu"]}, "head's place"),
        ({"kv": "int4"}, "kv is 'int4'"),
        ({"kv": {}}, "kv is {}"),
        ({"context": 0}, "context is 0"),
        ({"context": True}, "context is True"),
        ({"context": 1.5}, "context is 1.5"),
        ({"memory": 2**60}, "memory is 1152921504606846976"),
        ({"gpu_memory": "11GiB"}, "gpu_memory is '11GiB'"),
        ({"gpu_engine": "../x"}, "gpu_engine is '../x'"),
        ({"cpu_engine": None}, "cpu_engine is None"),
        ({"gpu_backend": 3}, "gpu_backend is 3"),
    ],
)
def test_file_that_is_no_placement(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        Placement.from_json(json.dumps(GOOD | change))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("field", sorted(set(GOOD) - {"format"}))
def test_file_that_lacks_a_field(field: str) -> None:
    with pytest.raises(InputError, match=f"lacks {field}"):
        Placement.from_dict({name: value for name, value in GOOD.items() if name != field})


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "null", "3", "[]", '{"placement": 3}', b"\xff\xfe{"]
)
def test_file_that_is_not_even_an_object(text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"not a plan in JSON|is a JSON object|format is None"):
        Placement.from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_no_value_breaks_the_reader(value: Any) -> None:
    for field in GOOD:
        with suppress(InputError):
            Placement.from_dict(GOOD | {field: value})


def test_first_on_gpu() -> None:
    assert Placement.first_on_gpu(4, 2).text == "gpu:0-1,ram:2-3,ram:head"
    assert Placement.first_on_gpu(4, 0).text == "ram:0-3,ram:head"
    assert Placement.first_on_gpu(4, 4).text == "gpu:0-3,gpu:head"
    assert Placement.first_on_gpu(4, 99, kv="int8") == Placement(("gpu",) * 4, head="gpu", kv="int8")
    with pytest.raises(InputError, match="-1 blocks"):
        Placement.first_on_gpu(4, -1)


@pytest.mark.parametrize(
    ("before", "count", "after"),
    [
        ("gpu:0-3,ram:4-5", 1, "gpu:0-2,ram:3-5,ram:head"),
        ("ram:0-1,gpu:2-5", 2, "ram:0-3,gpu:4-5,ram:head"),
        ("gpu:0-3,ram:4,disk:5", 1, "gpu:0-2,disk:3,ram:4,disk:5,ram:head"),
        ("gpu:0-1,gpu:head", 5, "ram:0-1,gpu:head"),
        ("ram:0-1,gpu:head", 1, "ram:0-1,ram:head"),
    ],
)
def test_fewer_on_gpu(before: str, count: int, after: str) -> None:
    assert Placement.parse(before).with_fewer_on_gpu(count).text == after


def test_nothing_to_move() -> None:
    with pytest.raises(InputError, match="nothing is left on the GPU"):
        Placement.parse("ram:0-3").with_fewer_on_gpu(1)


def test_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="is for 4 blocks, the model has 6"):
        Placement.parse("ram:0-3").check_fits(6)
