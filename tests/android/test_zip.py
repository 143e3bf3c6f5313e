"""The archive reader beside Python's: stored, deflated, streamed, ZIP64, larger than 4 GiB, damaged."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from android.java_process import Probe

CONTENTS = {
    "m/manifest.json": b"{}",
    "m/empty": b"",
    "m/long": os.urandom(200_000) + bytes(300_000),
    "m/你好": "你好".encode(),
}


class Unseekable(io.RawIOBase):
    """A pipe, so that sizes follow the files."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.file.write(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def write(target: Any, method: int, force_zip64: bool = False) -> None:
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("m/", b"")
        for name, data in CONTENTS.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=force_zip64) as entry:
                entry.write(data)


def expected(opened: bool, sized: bool) -> list[dict[str, Any]]:
    return [
        {
            "path": name,
            "size": len(data) if sized else -1,
            "sha256": hashlib.sha256(data).hexdigest() if opened else None,
        }
        for name, data in CONTENTS.items()
    ]


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("force_zip64", [False, True])
def test_walk(probe: Probe, tmp_path: Path, method: int, opened: bool, force_zip64: bool) -> None:
    path = tmp_path / "a.zip"
    write(path, method, force_zip64)
    assert probe.ask("walk", path=str(path), open=opened) == {"answer": expected(opened, True)}


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("force_zip64", [False, True])
def test_sizes_behind_deflated_files(probe: Probe, tmp_path: Path, opened: bool, force_zip64: bool) -> None:
    path = tmp_path / "a.zip"
    write(Unseekable(path), zipfile.ZIP_DEFLATED, force_zip64)
    assert probe.ask("walk", path=str(path), open=opened) == {"answer": expected(opened, False)}


def test_sizes_behind_stored_files_cannot_be_found(probe: Probe, tmp_path: Path) -> None:
    write(Unseekable(tmp_path / "a.zip"), zipfile.ZIP_STORED)
    assert "make it again" in probe.ask("walk", path=str(tmp_path / "a.zip"))["error"]


def test_larger_than_4_gib(probe: Probe, tmp_path: Path) -> None:
    """Sparse, so that it takes no room; the walk jumps over the first file."""
    path, size = tmp_path / "a.zip", 5 << 30
    name, extra = b"m/large", struct.pack("<HHQQ", 1, 16, size, size)
    header = struct.pack(
        "<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(extra)
    )
    with path.open("wb") as file:
        file.write(header + name + extra)
        file.seek(size, 1)
        with zipfile.ZipFile(io.BytesIO(), "w") as rest:
            rest.writestr("m/small", b"1")
            assert rest.fp is not None
            file.write(rest.fp.getvalue() if isinstance(rest.fp, io.BytesIO) else b"")
        file.write(struct.pack("<I", 0x02014B50))
    found = probe.ask("walk", path=str(path))["answer"]
    assert [(entry["path"], entry["size"]) for entry in found] == [("m/large", size), ("m/small", 1)]


def test_cut_off_anywhere(probe: Probe, tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.zip", tmp_path / "cut.zip"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        write(whole, method)
        data = whole.read_bytes()
        central = data.index(b"PK\x01\x02")
        for end in (0, 3, 10, 35, 36, central // 2, central - 1, central + 3):
            cut.write_bytes(data[:end])
            for opened in (False, True):
                assert "code" in probe.ask("walk", path=str(cut), open=opened), end


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (0, b"PK\x05\x05", "no ZIP archive"),
        (6, b"\x01\x00", "password"),
        (8, b"\x0c\x00", "not known: 12"),
        (18, b"\x07\x00\x00\x00", "damaged"),
        (28, b"\xff\xff", "damaged"),
    ],
)
def test_damaged_headers(probe: Probe, tmp_path: Path, place: int, value: bytes, problem: str) -> None:
    path = tmp_path / "a.zip"
    write(path, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(data)
    assert problem in probe.ask("walk", path=str(path))["error"]


def test_damaged_deflated_data(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write(path, zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    place = data.index(b"m/long") + 6  # where the first block says how it is packed
    path.write_bytes(data[:place] + b"\xff" * 64 + data[place + 64 :])
    assert "damaged" in probe.ask("walk", path=str(path), open=True)["error"]
