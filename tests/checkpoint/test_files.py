"""Files are read at offsets; side files are checked JSON."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketglm.checkpoint import files
from pocketglm.checkpoint.files import DataFile, opened_files, read_json_object, read_weight_map
from pocketglm.errors import CheckpointError


def test_reads_at_offsets(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(100)))
    data = DataFile(path)
    assert data.size == 100
    assert data.read(10, 5) == bytes(range(10, 15))
    data.close()


def test_reads_without_positioned_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no preadv: the fallback seeks."""
    monkeypatch.delattr(os, "preadv", raising=False)
    path = tmp_path / "data"
    path.write_bytes(bytes(range(100)))
    data = DataFile(path)
    assert data.read(90, 10) == bytes(range(90, 100))
    assert data.read(0, 3) == b"\0\1\2"
    data.close()


def test_a_read_past_the_end_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"12345")
    data = DataFile(path)
    with pytest.raises(
        CheckpointError, match=r"data: header is cut short: expected 8 bytes at offset 2, found 3"
    ):
        data.read(2, 8, "header")
    with pytest.raises(CheckpointError, match="cut short"):
        data.read(1 << 62, 1 << 62)
    with pytest.raises(CheckpointError, match="cut short"):
        data.read(-(1 << 70), 1)
    data.close()


def test_a_file_that_shrinks_while_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(1000))
    data = DataFile(path)
    os.truncate(path, 10)
    with pytest.raises(CheckpointError, match="cut short: expected 100 bytes at offset 0, found 10"):
        data.read(0, 100)
    data.close()


def test_a_closed_file_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"12345")
    data = DataFile(path)
    data.close()
    data.close()
    with pytest.raises(CheckpointError, match="cannot read"):
        data.read(0, 1)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="no such file"):
        DataFile(tmp_path / "pipe")


def test_files_are_closed_when_opening_fails(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"12345")
    opened: list[DataFile] = []

    def fail() -> None:
        with opened_files() as all_files:
            opened.append(all_files.open(path))
            assert all_files.open(path) is opened[0]
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    with pytest.raises(CheckpointError, match="cannot read"):
        opened[0].read(0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "must hold a JSON object, found list"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_bad_json_is_an_error(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_json_object(path)
    assert caught.value.where == str(path)


def test_a_huge_json_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    (tmp_path / "config.json").write_text('{"a": "0123456789"}')
    with pytest.raises(CheckpointError, match="expected at most 10"):
        read_json_object(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"w": 1}}', "tensor w is in file 1"),
        ('{"weight_map": {"w": "../../etc/passwd"}}', "expected the name of a file beside the index"),
        ('{"weight_map": {"w": "/etc/passwd"}}', "expected the name of a file beside the index"),
        ('{"weight_map": {"w": ".."}}', "which is not in|expected the name"),
        ('{"weight_map": {"w": "a.bin"}}', r"names the shard a\.bin \(for tensor w\), which is not in"),
    ],
)
def test_bad_indexes_are_errors(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "x.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        read_weight_map(tmp_path / "x.index.json")
