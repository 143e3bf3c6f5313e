"""GGUF files."""

from __future__ import annotations

from pathlib import Path

from pocketglm.checkpoint.stored import StoredCheckpoint
from pocketglm.errors import UnsupportedModelError

GGUF_MAGIC = b"GGUF"


def open_gguf(path: Path, named: Path) -> StoredCheckpoint:
    raise UnsupportedModelError("GGUF reading comes with the next commit", where=path)
