"""What native libraries print on standard output, kept away from it.

MNN reports problems only as lines on file descriptor 1 (and greets there when it is imported). Answers
of PocketGLM go to standard output, so those lines are captured, and read where they carry news.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

STDOUT = 1
_LOCK = threading.RLock()


@dataclass
class NativeOutput:
    """`text` is there once the context has ended."""

    text: str = ""


@contextmanager
def captured_output() -> Iterator[NativeOutput]:
    """Collect everything that is written to file descriptor 1 meanwhile, by any thread."""
    captured = NativeOutput()
    with _LOCK, tempfile.TemporaryFile() as file:
        _flush()
        try:
            kept = os.dup(STDOUT)
        except OSError:  # standard output is closed
            kept = -1
        os.dup2(file.fileno(), STDOUT)
        try:
            yield captured
        finally:
            _flush()
            if kept >= 0:
                os.dup2(kept, STDOUT)
                os.close(kept)
            else:
                os.close(STDOUT)
            file.seek(0)
            captured.text = file.read().decode("utf-8", "replace")


def _flush() -> None:
    """Write out what Python and the C library hold back: a pipe's lines would come out later."""
    with suppress(OSError, ValueError, AttributeError):  # closed, or replaced by something that cannot flush
        sys.stdout.flush()
    library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
    library.fflush(None)
