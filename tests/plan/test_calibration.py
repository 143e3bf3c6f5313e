"""What is kept of measurements: read back as it was, and ignored where it is anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketglm.plan.calibration import (
    MOST_ENTRIES,
    MOST_FILE_BYTES,
    Calibration,
    calibration_key,
    read_calibration,
    write_calibration,
)
from pocketglm.plan.rates import Bandwidths, Rates

POSITIONS = {"float32": 4e-8, "float16": 2e-8, "int8": 0.0}
FOUND = Calibration(
    100 << 20,
    Rates(Bandwidths(4e10, 3e9, 1e12), 1 << 20, 2e-4, POSITIONS, 7e-5, 0.0, 1e-3, 1e-5, 2e9, 0.0),  # type: ignore[arg-type]
)
KEY = calibration_key("0.1 build", 2, "fingerprint")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "calibration.json"
    write_calibration(path, KEY, FOUND)
    return path


def test_what_is_written_is_read(file: Path) -> None:
    assert read_calibration(file, KEY) == (FOUND, None)
    assert read_calibration(file, "another") == (None, None)
    assert read_calibration(file.with_name("none"), KEY) == (None, None)
    assert [path.name for path in file.parent.iterdir()] == ["calibration.json"]


def test_keys_differ_by_build_threads_and_package() -> None:
    keys = {calibration_key("a", 2, "p"), calibration_key("b", 2, "p"), calibration_key("a", 1, "p")}
    assert len(keys | {calibration_key("a", 2, "q")}) == 4


def test_the_oldest_entries_go(file: Path) -> None:
    for number in range(MOST_ENTRIES):
        write_calibration(file, f"key {number}", FOUND)
    assert read_calibration(file, KEY) == (None, None)
    assert read_calibration(file, "key 0") == (FOUND, None)


def changed(file: Path, change: Any) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(format="other"),
        lambda data: data.update(entries=[]),
        lambda data: data["entries"].update({KEY: 7}),
        lambda data: data["entries"][KEY].update(resident=-1),
        lambda data: data["entries"][KEY].update(resident="much"),
        lambda data: data["entries"][KEY]["rates"].pop("block_s"),
        lambda data: data["entries"][KEY]["rates"].update(block_s=0),
        lambda data: data["entries"][KEY]["rates"].update(streamed=True),
        lambda data: data["entries"][KEY]["rates"].pop("crowding"),
        lambda data: data["entries"][KEY]["rates"].update(crowding=1.0),
        lambda data: data["entries"][KEY]["rates"].update(crowding=-0.1),
        lambda data: data["entries"][KEY]["rates"].update(head_s=float("nan")),
        lambda data: data["entries"][KEY]["rates"].update(position_s={"int8": 1.0}),
        lambda data: data["entries"][KEY]["rates"]["bandwidths"].update(read=float("inf")),
        lambda data: data["entries"][KEY]["rates"]["bandwidths"].update(disk=-3e9),
    ],
)
def test_a_changed_file_is_ignored_with_a_warning_and_replaced(file: Path, change: Any) -> None:
    changed(file, change)
    found, warning = read_calibration(file, KEY)
    assert found is None
    assert warning is not None
    assert str(file) in warning
    write_calibration(file, KEY, FOUND)
    assert read_calibration(file, KEY) == (FOUND, None)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b" " * (MOST_FILE_BYTES + 1)))
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "calibration.json"
    path.write_bytes(data)
    found, warning = read_calibration(path, KEY)
    assert found is None
    assert warning is not None


def test_a_folder_in_its_place_is_survived(tmp_path: Path) -> None:
    found, warning = read_calibration(tmp_path, KEY)
    assert found is None
    assert warning is not None
