"""Files appear whole or not at all, and a full disk is one clear error."""

from __future__ import annotations

import hashlib
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from pocketglm.errors import InputError, ResourceError
from pocketglm.package.writer import FileWriter, hash_file, write_small_file


def test_file_appears_only_when_finished(tmp_path: Path) -> None:
    path = tmp_path / "f"
    writer = FileWriter(path, 8)
    writer.write(4, np.array([1], np.int32))
    assert not path.exists()
    entry = writer.finish()
    assert path.read_bytes() == b"\0\0\0\0\1\0\0\0"
    assert (entry.size, entry.sha256) == (8, hashlib.sha256(path.read_bytes()).hexdigest())
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_abandoned_file_leaves_nothing(tmp_path: Path) -> None:
    FileWriter(tmp_path / "f", 8).abandon()
    assert not list(tmp_path.iterdir())


def test_writing_outside_the_file_is_refused(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path / "f", 8)
    with pytest.raises(InputError, match="outside"):
        writer.write(5, b"1234")
    writer.abandon()


def test_no_room(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the same refusal by the operating system."""
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old_limit[1]))
    try:
        with pytest.raises(ResourceError, match="the disk is full") as caught:
            write_small_file(tmp_path / "f", bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert caught.value.hint is not None
    assert not (tmp_path / "f").exists()


def test_hash_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "f").write_bytes(data)
    assert hash_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()
