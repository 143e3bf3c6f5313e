"""APKs are ZIP archives; here their bytes depend on nothing but the files' names and contents."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DATE = (1981, 1, 1, 1, 1, 2)
"""The date that Android's own build gives to all files."""
STORED = ("resources.arsc",)
"""Android 11 and newer refuse an app whose resources are compressed."""


@dataclass(frozen=True)
class Entry:
    """A file in the archive."""

    name: str
    data: bytes

    @staticmethod
    def of_archive(path: Path) -> Iterator[Entry]:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield Entry(name, archive.read(name))


def write_archive(path: Path, entries: Sequence[Entry]) -> None:
    """All entries in the order of their names, the manifest first, where readers of APKs look for it."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in sorted(entries, key=lambda entry: (entry.name != "AndroidManifest.xml", entry.name)):
            info = zipfile.ZipInfo(entry.name, DATE)
            info.compress_type = zipfile.ZIP_STORED if entry.name in STORED else zipfile.ZIP_DEFLATED
            info.create_system = 0
            archive.writestr(info, entry.data, compresslevel=9)
