"""The record of an unfinished conversion, kept beside its files in `NAME.partial`.

A conversion is a list of steps, each leaving one whole file. After each step the journal is replaced
as a whole (write, then rename), so that a conversion killed at any moment loses at most one step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError
from pocketglm.package.manifest import FileEntry
from pocketglm.package.writer import disk_errors, hash_file, partial_of, write_small_file

JOURNAL_FILE = "journal.json"
HIDDEN_FILE = "hidden-{step:04d}.f32"


class Journal:
    """Finished files, their report entries, and the probe's hidden states after the last block."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.directory = directory
        self.fingerprint = fingerprint
        self.files: dict[str, FileEntry] = {}
        self.reports: dict[str, Any] = {}
        self._lock: IO[bytes] | None = None

    @classmethod
    def start(cls, output: Path, fingerprint: str, *, resume: bool, overwrite: bool) -> Journal:
        """Take over or create the `.partial` directory of `output`.

        Raises `InputError` where an unfinished conversion is there and neither `resume` nor
        `overwrite` is set, where it was made with other settings, or while another one runs.
        """
        directory = partial_of(output)
        journal = cls(directory, fingerprint)
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        journal._take_lock()
        try:
            if (directory / JOURNAL_FILE).exists() and not overwrite:
                journal._load(resume)
            else:
                journal._clear()
                journal._save()
        except BaseException:
            journal.release()
            raise
        return journal

    def finished(self, name: str) -> FileEntry | None:
        """The entry of a file finished by an earlier run, if its bytes are still what they were."""
        entry, path = self.files.get(name), self.directory / name
        if entry is None or not path.is_file() or path.stat().st_size != entry.size:
            return None
        return entry if hash_file(path) == entry.sha256 else None

    def record(self, name: str, entry: FileEntry, report: Mapping[str, Any] | None = None) -> None:
        """Note that `name` is whole under its final name."""
        self.files[name] = entry
        if report is not None:
            self.reports[name] = report
        self._save()

    def save_hidden(self, step: int, hidden: NDArray[np.float32]) -> None:
        """Keep the probe's hidden states [paths, rows, hidden] that enter step `step`."""
        write_small_file(self.directory / HIDDEN_FILE.format(step=step), hidden.astype("<f4").tobytes())

    def load_hidden(self, step: int, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """What `save_hidden` kept for `step`, or None."""
        path = self.directory / HIDDEN_FILE.format(step=step)
        if not path.is_file() or path.stat().st_size != 4 * int(np.prod(shape)):
            return None
        return np.fromfile(path, "<f4").reshape(shape)

    def drop_hidden(self, before: int) -> None:
        """Forget the hidden states of steps below `before`."""
        for path in self.directory.glob("hidden-*.f32"):
            if path.name < HIDDEN_FILE.format(step=before):
                path.unlink(missing_ok=True)

    def finish(self, output: Path, keep: frozenset[str], *, overwrite: bool) -> None:
        """Remove everything but the package's files and give the directory its final name."""
        with disk_errors(output):
            for path in self.directory.iterdir():
                if path.name not in keep:
                    path.unlink()
            replaced = output.with_name(output.name + ".replaced")
            if overwrite and output.exists():
                os.replace(output, replaced)
            os.replace(self.directory, output)
            shutil.rmtree(replaced, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let another process continue. Idempotent."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        """One conversion at a time; the lock goes with the process, however it ends."""
        try:
            import fcntl
        except ImportError:  # no such lock on Windows: two conversions there are the user's care
            return
        self._lock = open(self.directory / "lock", "wb")  # noqa: SIM115 - held until release
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise InputError("another conversion is writing here", where=self.directory) from None

    def _load(self, resume: bool) -> None:
        path = self.directory / JOURNAL_FILE
        try:
            data = json.loads(path.read_text("utf-8"))
            self.files = {name: FileEntry(**entry) for name, entry in data["files"].items()}
            self.reports = data["reports"]
            fingerprint = data["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                "its journal cannot be read", where=self.directory, hint="start anew with --overwrite"
            ) from None
        if not resume:
            raise InputError(
                f"an unfinished conversion is here ({len(self.files)} files done)",
                where=self.directory,
                hint="continue it with --resume, or start anew with --overwrite",
            )
        if fingerprint != self.fingerprint:
            raise InputError(
                "the unfinished conversion here has another source or other settings",
                where=self.directory,
                hint="repeat its settings, or start anew with --overwrite",
            )

    def _clear(self) -> None:
        """Empty the directory, if it is one of ours."""
        found = [path for path in self.directory.iterdir() if path.name != "lock"]
        ours = (self.directory / JOURNAL_FILE).exists() or all(p.suffix == ".tmp" for p in found)
        if not ours:
            raise InputError(
                "this folder is in the way and was not made by an unfinished conversion",
                where=self.directory,
                hint="move it, or choose another output name",
            )
        for path in found:
            path.unlink()

    def _save(self) -> None:
        data = {
            "fingerprint": self.fingerprint,
            "files": {name: {"size": f.size, "sha256": f.sha256} for name, f in self.files.items()},
            "reports": self.reports,
        }
        write_small_file(self.directory / JOURNAL_FILE, json.dumps(data).encode())
