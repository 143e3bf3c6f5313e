"""`export --format zip`: a package as one file, to send or to host.

Enters: a package. Leaves: an uncompressed ZIP archive (quantized weights do not compress) that unpacks to
a directory of the package's name. Equal packages of one name give equal bytes.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from pocketglm.errors import InputError
from pocketglm.package.manifest import MANIFEST_FILE
from pocketglm.package.reader import Package
from pocketglm.package.writer import disk_errors, partial_of

Progress = Callable[[str, int, int], None]
"""(file being packed, bytes done, bytes in all)."""

COPY_CHUNK = 4 << 20


def export_zip(package: str | Path, output: str | Path, progress: Progress | None = None) -> Path:
    """Write the package's files to the new archive `output`, which appears whole or not at all.

    Files that the manifest does not list are left out. Raises `InputError` where `output` exists,
    `ResourceError` where the disk is full.
    """
    target = Path(output)
    if target.exists():
        raise InputError("exists already", where=target, hint="remove it, or name another file")
    with Package.open(package) as opened:  # checks the manifest and the sizes of all files
        files = opened.manifest.files
        folder, name = opened.path, opened.path.resolve().name
    partial = partial_of(target)
    done, total = 0, sum(entry.size for entry in files.values())
    try:
        with disk_errors(target), zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for file in (MANIFEST_FILE, *sorted(files)):
                if progress:
                    progress(file, done, total)
                _add(archive, folder / file, f"{name}/{file}")
                done += files[file].size if file in files else 0
        with disk_errors(target):
            partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _add(archive: zipfile.ZipFile, source: Path, name: str) -> None:
    """Pack one file, always with the same date."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    entry.file_size = source.stat().st_size
    with open(source, "rb") as file, archive.open(entry, "w") as packed:
        shutil.copyfileobj(file, packed, COPY_CHUNK)
