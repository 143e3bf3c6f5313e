"""Writing one file of a package: rows in any order, then a hash, then a rename.

Enters: a layout and rows. Leaves: a finished file under its final name and its `FileEntry`. A file
under its final name is always whole: until `finish` it carries the suffix `.tmp`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError, ResourceError
from pocketglm.package.encoding import LinearEntry, linear_header
from pocketglm.package.layout import WeightLayout
from pocketglm.package.manifest import FileEntry
from pocketglm.quantize.rows import QuantizedRows

HASH_CHUNK = 4 << 20
HUGE_PAGE = 2 << 20


class FileWriter:
    """A file of known size, written at offsets. Writes are safe from several threads at once."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._temporary = path.with_name(path.name + ".tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        with disk_errors(path):
            self._descriptor = os.open(self._temporary, flags, 0o644)
            try:
                os.ftruncate(self._descriptor, size)
            except OSError:
                self.abandon()
                raise

    def write(self, offset: int, data: NDArray[Any] | bytes) -> None:
        view = memoryview(data if isinstance(data, bytes) else np.ascontiguousarray(data).data).cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise InputError(f"{self.path}: bytes {offset} to {offset + len(view)} are outside {self.size}")
        with disk_errors(self.path):
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written

    def finish(self) -> FileEntry:
        """Hash, close and rename. Raises `ResourceError` where the disk is full."""
        with disk_errors(self.path):
            os.close(self._descriptor)
            self._descriptor = -1
            digest = hash_file(self._temporary)
            os.replace(self._temporary, self.path)
        return FileEntry(self.size, digest)

    def abandon(self) -> None:
        """Close and remove the unfinished file. Does nothing after `finish`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.unlink(missing_ok=True)


class WeightFileWriter(FileWriter):
    """Writes the tensors of one `WeightLayout`."""

    def __init__(self, directory: Path, layout: WeightLayout) -> None:
        super().__init__(directory / layout.file, layout.size)
        self._entries = {entry.name: entry for entry in layout.entries}
        try:
            self._fill()
            for entry in layout.entries:
                if isinstance(entry, LinearEntry) and entry.format.quantized:
                    self.write(entry.offset, linear_header(entry))
        except BaseException:
            self.abandon()
            raise

    def _fill(self) -> None:
        """Zeros, in large pieces, before anything else.

        Linux caches a file in pages as large as what is first written to them, and an engine that maps huge
        ones decodes up to a quarter faster.
        """
        zeros = bytes(min(self.size, 8 * HUGE_PAGE))
        for start in range(0, self.size, len(zeros) or 1):
            self.write(start, zeros[: self.size - start])

    def write_quantized(self, name: str, start: int, rows: QuantizedRows) -> None:
        """Codes, scales and zeros of rows start..start+len of a quantized linear layer."""
        entry = self.linear_entry(name)
        columns = entry.shape[1]
        self.write(entry.codes_offset + start * entry.format.code_bytes(columns), rows.codes)
        alpha_row_bytes = entry.format.alpha_values(columns) * 2
        self.write(entry.alpha_offset + start * alpha_row_bytes, rows.alpha.astype("<f2", copy=False))

    def write_floats(self, name: str, start: int, rows: NDArray[np.float32]) -> None:
        """Rows of a linear layer stored as float16 or float32."""
        entry = self.linear_entry(name)
        dtype = "<f2" if entry.format.bits == 16 else "<f4"
        self.write(
            entry.codes_offset + start * entry.format.code_bytes(entry.shape[1]),
            rows.astype(dtype, copy=False),
        )

    def write_bias(self, name: str, bias: NDArray[np.float32]) -> None:
        self.write(self.linear_entry(name).bias_offset, bias.astype("<f4", copy=False))

    def write_vector(self, name: str, values: NDArray[np.float32]) -> None:
        self.write(self._entries[name].offset, values.astype("<f4", copy=False))

    def linear_entry(self, name: str) -> LinearEntry:
        entry = self._entries[name]
        if not isinstance(entry, LinearEntry):
            raise InputError(f"{self.path}: {name} is not a linear layer")
        return entry


def partial_of(output: Path) -> Path:
    """Where whatever is to become `output` is made until it is whole."""
    return output.with_name(output.name + ".partial")


def write_small_file(path: Path, data: bytes) -> FileEntry:
    """Write a whole small file under a temporary name, then rename it."""
    writer = FileWriter(path, len(data))
    try:
        writer.write(0, data)
        return writer.finish()
    finally:
        writer.abandon()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in chunks."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into `ResourceError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "free some disk space and run the same command with --resume" if full else None
        reason = "the disk is full" if full else f"cannot write ({error.strerror})"
        raise ResourceError(reason, where=path, hint=hint) from None
