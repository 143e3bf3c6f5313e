"""Small packages as a phone gets them: with tokenizer and template, as a folder and as an archive.

Enters: a folder. Leaves: packages, and what the host must know of them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from generate.tiny_models import add_files, write_tiny
from pocketglm.export.archive import export_zip

PADDING = "padding.txt"
"""A listed file large enough to be interrupted in."""


def write_phone_package(path: Path, seed: int = 0, padding: int = 600_000) -> Path:
    write_tiny(path, seed=seed)
    digits = np.random.default_rng(seed).integers(48, 58, padding, dtype=np.uint8)
    add_files(path, {PADDING: digits.tobytes().decode()})
    return path


def write_archive(package: Path) -> Path:
    return export_zip(package, package.with_suffix(".zip"))


def manifest_of(package: Path) -> dict[str, Any]:
    return dict(json.loads((package / "manifest.json").read_bytes()))


def write_manifest(package: Path, manifest: Any) -> None:
    (package / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def id_of(package: Path) -> str:
    return hashlib.sha256((package / "manifest.json").read_bytes()).hexdigest()[:16]


def bytes_of(package: Path) -> int:
    return sum(entry["size"] for entry in manifest_of(package)["files"].values())
