"""Adding small files to a finished package, or to a copy of it that shares its bytes.

Enters: a package directory and files to add. Leaves: a package whose manifest lists them. Weight files
are never opened: a copy holds hard links to them where the file system has those.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketglm.package.manifest import MANIFEST_FILE, Manifest
from pocketglm.package.reader import read_manifest
from pocketglm.package.writer import disk_errors, write_small_file


def link_package(source: Path, target: Path) -> None:
    """Make `target`, a new directory, a package with the files of the package `source`.

    Each file is a hard link, which takes no space and no time; where the file system refuses (another
    disk), a copy. The manifest is a copy: it is what will change.
    """
    with disk_errors(target):
        target.mkdir()
        for name in read_manifest(source).files:
            try:
                os.link(source / name, target / name)
            except OSError:
                shutil.copyfile(source / name, target / name)
        shutil.copyfile(source / MANIFEST_FILE, target / MANIFEST_FILE)


def add_graphs(package: Path, kind: str, files: Mapping[str, bytes], stamp: Mapping[str, Any]) -> None:
    """Write `files` into the package and list them in its manifest, with `graphs[kind] = stamp`.

    Files of the same names from an earlier export are replaced. The manifest is written last, so an
    interrupted call leaves a package without these graphs, but a sound one.
    """
    manifest = read_manifest(package)
    others = {name: entry for name, entry in manifest.files.items() if name not in files}
    if len(others) < len(manifest.files):
        stamps = {name: value for name, value in manifest.graphs.items() if name != kind}
        manifest = replace(manifest, files=others, graphs=stamps)
        _write_manifest(package, manifest)
    entries = {name: write_small_file(package / name, data) for name, data in files.items()}
    graphs = {**manifest.graphs, kind: dict(stamp)}
    _write_manifest(package, replace(manifest, files={**others, **entries}, graphs=graphs))


def _write_manifest(package: Path, manifest: Manifest) -> None:
    write_small_file(package / MANIFEST_FILE, manifest.to_json().encode())
