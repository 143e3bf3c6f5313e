"""Rounds of the planner's benchmark: kept one by one, medians of them in the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("plan", "plan_models", "hard_limit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import plan

    yield plan
    for name in ("plan", "plan_models", "hard_limit"):
        sys.modules.pop(name, None)


def row(bench: Any, model: str, predicted: float, measured: float) -> dict[str, Any]:
    case = {"model": model, "context": 256, "kv": "float16", "part": 0.5}
    rounds = [{"predicted": {"decode_tps": predicted}, "measured": {"decode_tps": measured}}]
    return {**case, **bench.of_rounds(rounds)}


def test_rounds_are_added_and_their_medians_count(bench: Any) -> None:
    rows: list[dict[str, Any]] = []
    for predicted, measured in ((50.0, 30.0), (40.0, 41.0), (42.0, 60.0)):
        rows = bench.merged(rows, [row(bench, "smollm2-int4", predicted, measured)], True)["rows"]
    (made,) = rows
    assert made["predicted"] == {"decode_tps": 42.0}
    assert made["measured"] == {"decode_tps": 41.0}
    assert len(made["rounds"]) == 3
    (anew,) = bench.merged(rows, [row(bench, "smollm2-int4", 1.0, 2.0)], False)["rows"]
    assert len(anew["rounds"]) == 1


def test_rows_of_other_models_stay(bench: Any) -> None:
    before = [row(bench, "llama-int4", 1.0, 1.0)]
    rows = bench.merged(before, [row(bench, "smollm2-int4", 2.0, 2.0)], False)["rows"]
    assert [made["model"] for made in rows] == ["smollm2-int4", "llama-int4"]
