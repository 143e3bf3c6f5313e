"""Files of a checkpoint, read at given offsets, and its JSON side files.

Enters: a path. Leaves: bytes at an offset, or a checked JSON object. Weights are read with
positioned reads and not mapped: mapped pages count as resident memory of a conversion, and a file
that shrinks under a mapping kills the process, where a read reports an error.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketglm.errors import CheckpointError

MAX_JSON_BYTES = 256 << 20
"""The largest known index (hundreds of thousands of expert tensors) is below 50 MB."""


class DataFile:
    """A file open for reading at offsets, from any number of threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():  # a pipe or a device would hang or never end
            raise CheckpointError("no such file", where=path)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(f"cannot open: {error.strerror}", where=path) from error
        self._seek_lock = threading.Lock()
        self.size = os.fstat(self._descriptor).st_size

    def read_into(self, buffer: memoryview, offset: int, what: str = "data") -> None:
        """Fill `buffer` (bytes) from `offset`; `what` names the thing for the error message."""
        done = 0
        while done < len(buffer):
            try:
                got = self._read_once(buffer[done:], offset + done)
            except OSError as error:
                raise CheckpointError(f"cannot read {what}: {error.strerror}", where=self.path) from error
            if got == 0:
                raise CheckpointError(
                    f"{what} is cut short: expected {len(buffer)} bytes at offset {offset}, found {done}",
                    where=self.path,
                    hint="download the file again",
                )
            done += got

    def read(self, offset: int, count: int, what: str = "data") -> bytes:
        """`count` bytes from `offset`. The count is checked against the file before memory is taken."""
        if offset < 0 or count > self.size - offset:
            found = 0 if offset < 0 else max(0, self.size - offset)
            raise CheckpointError(
                f"{what} is cut short: expected {count} bytes at offset {offset}, found {found}",
                where=self.path,
                hint="download the file again",
            )
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), offset, what)
        return bytes(buffer)

    def _read_once(self, buffer: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [buffer], offset)
        with self._seek_lock:  # Windows has no positioned read
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            piece = os.read(self._descriptor, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Close the file; later reads raise `CheckpointError`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OpenFiles:
    """Data files by path, each opened once, all closed together."""

    def __init__(self) -> None:
        self._files: dict[Path, DataFile] = {}

    def open(self, path: Path) -> DataFile:
        if path not in self._files:
            self._files[path] = DataFile(path)
        return self._files[path]

    def __iter__(self) -> Iterator[DataFile]:
        return iter(self._files.values())

    def close(self) -> None:
        for file in self._files.values():
            file.close()


@contextmanager
def opened_files() -> Iterator[OpenFiles]:
    """Open files that stay open when the block succeeds and are closed when it fails."""
    files = OpenFiles()
    try:
        yield files
    except BaseException:
        files.close()
        raise


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a side file (config.json, an index)."""
    data = DataFile(path)
    try:
        if data.size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"is {data.size} bytes long, expected at most {MAX_JSON_BYTES} for a JSON file", where=path
            )
        text = data.read(0, data.size, "the JSON text")
    finally:
        data.close()
    return parse_json_object(text, path, "the file")


def parse_json_object(text: bytes, path: Path, what: str) -> dict[str, Any]:
    """Parse untrusted JSON that must be an object with unique keys."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # ValueError covers bad UTF-8 and bad JSON
        raise CheckpointError(f"{what} is not valid JSON: {error}", where=path) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} must hold a JSON object, found {type(value).__name__}", where=path)
    return value


def read_weight_map(path: Path) -> Mapping[str, Path]:
    """Tensor name -> shard, from a `*.index.json`. Shards must lie beside the index."""
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("has no weight_map: expected an object of tensor names and files", where=path)
    return {name: _shard_path(path, name, shard) for name, shard in weight_map.items()}


def _shard_path(index: Path, tensor: str, shard: object) -> Path:
    if not isinstance(shard, str) or not shard or Path(shard).name != shard or "\\" in shard or "\0" in shard:
        raise CheckpointError(
            f"tensor {tensor} is in file {shard!r}, expected the name of a file beside the index", where=index
        )
    path = index.parent / shard
    if not path.is_file():
        raise CheckpointError(
            f"names the shard {shard} (for tensor {tensor}), which is not in {index.parent}",
            where=index,
            hint="download the missing shard",
        )
    return path


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} appears twice")
            seen.add(key)
    return result
