"""`pocketglm plan`: table, reasons, JSON, what-if, and what was measured kept for the next time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command, Program
from pocketglm.cli import measure
from pocketglm.cli.assume import assumed_machine, parse_assumptions
from pocketglm.cli.footprint import measure_footprint
from pocketglm.errors import EngineError, InputError
from pocketglm.plan.calibration import Calibration
from pocketglm.plan.machine import Gpu, Machine
from pocketglm.plan.placement import Placement
from pocketglm.plan.rates import Bandwidths, Rates

GIB = 1 << 30
RATES = Rates(
    *(Bandwidths(4e10, 3e9, 1e12), 100_000, 2e-4, {"float32": 4e-8, "float16": 2e-8, "int8": 1e-8}),
    *(7e-5, 1e-9, 1e-3, 1e-5, 2e9, 0.1),
)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Stands for the measurement; the list says how often it was made."""
    made: list[Any] = []

    def stand_in(package: object, threads: int) -> Calibration:
        made.append(threads)
        return Calibration(100 << 20, RATES)

    monkeypatch.setattr(measure, "_measure", stand_in)
    return made


def test_the_table_says_what_goes_where_and_why(command: Command, package: Path, known: list[Any]) -> None:
    result = command("plan", package, "--context", 512)
    assert result.exit_code == 0
    for text in ("head", "KV cache", "tokens/s", "- RAM:", "since all of them fit", "512 tokens, as asked"):
        assert text in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith("pocketglm run ")


def test_json_holds_a_placement_that_can_be_read(command: Command, package: Path, known: list[Any]) -> None:
    result = command("plan", package, "--json", "--kv", "int8", "--memory", "300MiB", "--threads", 2)
    data = json.loads(result.stdout)
    placement = Placement.from_json(result.stdout)
    assert placement.kv == data["kv"] == "int8"
    assert placement.memory == 300 << 20
    assert data["memory_bytes"]["ram"] == sum(data["parts"]["ram"].values()) <= data["limit_bytes"]["ram"]
    assert data["reasons"]
    assert "--memory 300MiB" in data["command"]


def test_measurements_are_kept_until_asked_for_again(
    command: Command, package: Path, known: list[Any]
) -> None:
    first = command("plan", package)
    assert "measuring this machine" in first.stderr
    assert "measuring" not in command("plan", package).stderr
    assert len(known) == 1
    command("plan", package, "--calibrate")
    command("plan", package, "--threads", 1)
    assert len(known) == 3


def test_a_hostile_calibration_file_is_ignored(
    command: Command, package: Path, known: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "calibration.json").write_text(
        '{"format": "pocketglm-calibration-2", "entries": 1}'
    )
    result = command("plan", package)
    assert result.exit_code == 0
    assert "is ignored" in result.stderr
    assert "is ignored" not in command("plan", package).stderr


def test_a_cache_folder_that_cannot_be_written_is_survived(
    command: Command, package: Path, known: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    result = command("plan", package)
    assert result.exit_code == 0
    assert "cannot be kept" in result.stderr


def test_another_machine_is_assumed(command: Command, package: Path, known: list[Any]) -> None:
    result = command("plan", package, "--json", "--context", 256, "--assume", "gpu=8GiB,ram=4GiB,disk=1GB/s")
    data = json.loads(result.stdout)
    assert data["place"].endswith("gpu:head")
    assert data["gpu"]["free"] == 8 * GIB
    assert data["speed_measured"] is False
    assert data["reasons"][0] == "assumed: gpu=8.0 GiB, ram=4.0 GiB, disk=953.7 MiB/s"
    assert data["limit_bytes"]["ram"] < 4 * GIB


def test_too_little_memory_is_said_with_the_least(command: Command, package: Path, known: list[Any]) -> None:
    result = command("plan", package, "--assume", "ram=100MiB")
    assert result.exit_code == 5
    assert "at least" in result.stderr


def test_a_gpu_that_is_not_there_is_refused(command: Command, package: Path, known: list[Any]) -> None:
    result = command("plan", package, "--gpu-layers", 1, "--assume", "gpu=none")
    assert result.exit_code == 5
    assert "there is none" in result.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no assumption"),
        ("cpu=4", "is no assumption"),
        ("ram", "is no assumption"),
        ("ram=2GiB,ram=3GiB", "assumed twice"),
        ("ram=two", "is no size"),
        ("disk=2GB", "is no rate"),
        ("disk=fast/s", "is no size"),
        ("gpu=-1GiB", "is no size"),
    ],
)
def test_assumptions_that_say_nothing_are_refused(
    command: Command, package: Path, text: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        parse_assumptions(text)
    assert command("plan", package, "--assume", text).exit_code == 2


def test_assumptions_change_what_they_name_only() -> None:
    machine = Machine(8 * GIB, 4, (Gpu("one", "cuda:0", GIB),))
    assumed = parse_assumptions(" ram=2GiB , gpu-read=600GB/s")
    changed = assumed_machine(machine, assumed)
    assert changed.free_memory == 2 * GIB
    assert changed.cpus == 4
    assert changed.gpus == (Gpu("one", "cuda:0", GIB, read_bytes_per_s=600 * 10**9),)
    assert assumed_machine(machine, parse_assumptions("gpu=none")).gpus == ()


def test_a_fresh_process_is_measured(package: Path) -> None:
    assert 30 << 20 < measure_footprint(package, 2) < 400 << 20


def test_a_process_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be measured"):
        measure_footprint(tmp_path / "none", 2)


def test_the_whole_way_with_real_measurements(program: Program, package: Path) -> None:
    done = program("plan", package, "--json", "--threads", "2")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["speed_measured"] is True
    assert data["speed"]["decode_tps"] > 0
