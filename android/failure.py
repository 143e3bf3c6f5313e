"""The errors of the APK's build: what failed, and what to do next."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class BuildError(Exception):
    """`hint` says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class MissingToolError(BuildError):
    """Something that the build needs is neither on the machine nor to be had from its registry."""


def run(command: Sequence[str | Path], failure: str, *, hint: str = "", **environment: str) -> str:
    """What the command wrote to standard output. An error carries the end of all that it said."""
    words = [str(word) for word in command]
    settings: Mapping[str, str] = {**os.environ, **environment}
    try:
        done = subprocess.run(words, env=settings, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{failure}: {error}", hint) from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-4000:]
        raise BuildError(f"{failure} (exit code {done.returncode} of {words[0]}):\n{said}", hint)
    return done.stdout
