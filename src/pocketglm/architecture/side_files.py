"""Small text files beside a checkpoint's weights, read as evidence of what the model is.

Enters: a checkpoint and a file name. Leaves: the text, empty where there is no such file.
"""

from __future__ import annotations

from pocketglm.checkpoint.source import Checkpoint
from pocketglm.errors import CheckpointError

MAX_BYTES = 16 << 20
"""Far above any real settings file; a larger one is not what its name says."""


def read_side_file(checkpoint: Checkpoint, name: str) -> str:
    """Text of a side file. GGUF files bring everything themselves, so they have none."""
    path = checkpoint.directory / name
    if checkpoint.format == "gguf" or not path.is_file():
        return ""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"is larger than {MAX_BYTES} bytes", where=path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot be read as text: {error}", where=path) from error
