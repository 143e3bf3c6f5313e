"""A model larger than the free memory is planned by itself, and no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cli.conftest import Command
from generate.tiny_models import CAUSAL, write_tiny
from pocketglm.cli import measure
from pocketglm.plan import machine, planner
from pocketglm.plan.calibration import Calibration
from pocketglm.plan.rates import Bandwidths, Rates
from pocketglm.quantize.formats import WeightFormat

MIB = 1 << 20
MODEL = replace(CAUSAL, hidden_size=256, intermediate_size=4096, num_blocks=10)
RATES = Rates(
    *(Bandwidths(4e10, 3e9, 1e12), 100_000, 2e-4, {"float32": 4e-8, "float16": 2e-8, "int8": 1e-8}),
    *(7e-5, 1e-9, 1e-3, 1e-5, 2e9, 0.1),
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 MiB of weights."""
    return write_tiny(
        tmp_path_factory.mktemp("automatic") / "p",
        MODEL,
        weight_format=WeightFormat(32),
        generation={"do_sample": False},
    )


def say_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A machine with so little free memory; its margin is left out, and nothing is measured."""
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    monkeypatch.setattr(planner, "LEAST_MARGIN", 0)
    monkeypatch.setattr(measure, "_measure", lambda package, threads: Calibration(75 * MIB, RATES))


def test_blocks_are_read_from_disk_and_the_answer_is_the_same(
    command: Command, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", large, "Hi", "--max-tokens", 4, "--json", "--threads", 2)
    before = json.loads(command(*arguments).stdout)
    say_free(monkeypatch, 100 * MIB)
    short = command(*arguments, "--context", 64)
    assert "blocks are read from disk" not in short.stderr  # not even that fits: it is tried as it is
    say_free(monkeypatch, 230 * MIB)
    result = command(*arguments, "--context", 64)
    assert "blocks are read from disk at every step, with a context of 64 tokens" in result.stderr
    after = json.loads(result.stdout)
    assert "disk" in after["placement"]
    assert after["token_ids"] == before["token_ids"]
    assert "disk" not in (before["placement"] or "")


@pytest.mark.parametrize(
    "said", [("--memory", "1GiB"), ("--gpu-layers", 0), ("--engine", "reference")], ids=lambda said: said[0]
)
def test_what_the_user_says_counts(
    command: Command, large: Path, monkeypatch: pytest.MonkeyPatch, said: tuple[object, ...]
) -> None:
    say_free(monkeypatch, 230 * MIB)
    result = command("run", large, "Hi", "--max-tokens", 1, "--context", 64, *said)
    assert result.exit_code == 0, result.stderr
    assert "from disk" not in result.stderr
