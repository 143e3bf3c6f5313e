"""Files appear whole or not at all, and a full disk is one clear error."""

from __future__ import annotations

import hashlib
import mmap
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from package.packages import TINY
from pocketglm.architecture.spec import ModelSpec
from pocketglm.errors import InputError, ResourceError
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import plan_block
from pocketglm.package.writer import FileWriter, WeightFileWriter, hash_file, write_small_file
from pocketglm.quantize.formats import WeightFormat


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
    with largest_file(1 << 16), pytest.raises(ResourceError, match="the disk is full") as caught:
        write_small_file(tmp_path / "f", bytes(1 << 20))
    assert caught.value.hint is not None
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells how a file is mapped")
def test_written_weights_are_cached_in_huge_pages(tmp_path: Path) -> None:
    """Nearly as a file written at once is; not at all where the file system has no huge pages."""
    spec = replace(TINY, hidden_size=2048, intermediate_size=4096)
    tries = 5  # the system has not always enough huge pages at hand
    assert any(half_as_huge(tmp_path, spec) for _ in range(tries))


def half_as_huge(directory: Path, spec: ModelSpec) -> bool:
    layout = plan_block(spec, 0, lambda *_: WeightFormat(8, 32))
    writer = WeightFileWriter(directory, layout)
    for entry in layout.entries:
        if isinstance(entry, LinearEntry):
            rows, columns = entry.shape
            for row in range(rows):
                writer.write(entry.codes_offset + row * columns, bytes([row % 251]) * columns)
    writer.finish()
    (directory / "at-once").write_bytes((directory / layout.file).read_bytes())
    return huge_bytes(directory / layout.file) >= huge_bytes(directory / "at-once") / 2


def huge_bytes(path: Path) -> int:
    """Bytes of a file that are mapped in huge pages."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped) > 8 << 20
        sum(mapped[:: mmap.PAGESIZE])
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        assert any(line.endswith(str(path)) for line in lines)
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("FilePmdMapped"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old_limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)


def test_hash_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "f").write_bytes(data)
    assert hash_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()
