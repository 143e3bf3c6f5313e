"""The header of a GGUF file: key-value metadata and the list of tensors.

Enters: an open file. Leaves: checked tensor descriptions and lazily read metadata. Layout:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader of the `gguf` package is not
used: it makes Python objects of every token before it returns (seconds for a large vocabulary) and
trusts sizes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketglm.checkpoint.files import DataFile
from pocketglm.checkpoint.stored import MAX_DIMENSIONS, check_shape
from pocketglm.errors import CheckpointError, UnsupportedModelError

GGUF_MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 128 << 20
"""Several times the largest vocabulary with its merges."""

MAX_NAME_BYTES = 65535
MAX_ALIGNMENT = 1 << 20
_WINDOW = 1 << 20

_NUMBERS: dict[int, str] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4",
    6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9


@dataclass(frozen=True)
class GGUFTensor:
    """One entry of the tensor list. `shape` is outermost first; `offset` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    type_code: int
    offset: int


@dataclass(frozen=True)
class _Array:
    """A metadata array that stays in the file until someone asks for it."""

    item_type: int
    count: int
    offset: int
    size: int


class GGUFMetadata(Mapping[str, Any]):
    """Key-value metadata as Python values. Arrays are read from the file each time they are asked for."""

    def __init__(self, data: DataFile, values: Mapping[str, Any]) -> None:
        self._data = data
        self._values = values

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        return _read_array(self._data, key, value) if isinstance(value, _Array) else value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def is_array(self, key: str) -> bool:
        """Whether the value is an array, without reading it."""
        return isinstance(self._values.get(key), _Array)


def read_header(data: DataFile) -> tuple[GGUFMetadata, list[GGUFTensor]]:
    """Metadata and tensors of a GGUF file. Bounds of tensor data are for the caller to check."""
    cursor = _Cursor(data)
    _check_version(cursor)
    tensor_count, pair_count = cursor.number("<Q"), cursor.number("<Q")
    cursor.check_count(tensor_count, 24, "tensors")
    cursor.check_count(pair_count, 13, "metadata entries")
    values: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.name("a metadata key")
        if key in values:
            raise CheckpointError(f"the metadata key {key} appears twice", where=data.path)
        values[key] = _read_value(cursor, key)
    entries = [_read_tensor(cursor) for _ in range(tensor_count)]
    alignment = _alignment(values.get("general.alignment", 32), data)
    base = -(-cursor.position // alignment) * alignment
    return GGUFMetadata(data, values), _place(entries, base, alignment, data)


class _Cursor:
    """Reads the header front to back. The part read so far is kept, a window ahead at a time."""

    def __init__(self, data: DataFile) -> None:
        self.data = data
        self.position = 0
        self._buffer = bytearray()

    def take(self, count: int, what: str) -> bytes:
        self._need(count, what)
        self.position += count
        return bytes(self._buffer[self.position - count : self.position])

    def number(self, layout: str, what: str = "the header") -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def text(self, what: str) -> str:
        return _decode(self.take(self.number("<Q", what), what), what, self.data)

    def name(self, what: str) -> str:
        length = self.number("<Q", what)
        if length > MAX_NAME_BYTES:
            raise CheckpointError(
                f"{what} is {length} bytes long, expected at most {MAX_NAME_BYTES}", where=self.data.path
            )
        return _decode(self.take(length, what), what, self.data)

    def skip(self, count: int, what: str) -> None:
        self._need(count, what)
        self.position += count

    def skip_strings(self, count: int, what: str) -> None:
        """Pass over `count` strings. This is the loop that a large vocabulary spends its time in."""
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self.position + 8 > len(self._buffer):
                self._need(8, what)
            end = self.position + 8 + unpack(self._buffer, self.position)[0]
            if end > len(self._buffer):
                self._need(end - self.position, what)
            self.position = end

    def check_count(self, count: int, least_bytes: int, what: str) -> None:
        """Refuse a count whose entries cannot fit into the rest of the file."""
        if count * least_bytes > self.data.size - self.position:
            raise CheckpointError(
                f"claims {count} {what}, more than its {self.data.size} bytes can hold", where=self.data.path
            )

    def _need(self, count: int, what: str) -> None:
        end = self.position + count
        if end <= len(self._buffer):
            return
        if end > min(self.data.size, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{what} is cut short or too long: expected {count} bytes at offset {self.position}, "
                f"found {max(0, self.data.size - self.position)}",
                where=self.data.path,
                hint="download the file again",
            )
        goal = min(self.data.size, max(end, len(self._buffer) + _WINDOW))
        self._buffer += self.data.read(len(self._buffer), goal - len(self._buffer), "the header")


def _check_version(cursor: _Cursor) -> None:
    if cursor.take(4, "the magic number") != GGUF_MAGIC:
        raise CheckpointError("is not a GGUF file: the magic number is wrong", where=cursor.data.path)
    version = cursor.number("<I")
    if version in VERSIONS:
        return
    if version & 0xFFFF == 0:
        raise UnsupportedModelError(
            "is a big-endian GGUF file, expected little-endian", where=cursor.data.path
        )
    raise UnsupportedModelError(
        f"is GGUF version {version}, expected 2 or 3",
        where=cursor.data.path,
        hint="get a newer file of the model",
    )


def _read_value(cursor: _Cursor, key: str) -> Any:
    what = f"metadata {key}"
    kind = cursor.number("<I", what)
    if kind == _STRING:
        return cursor.text(what)
    if kind == _ARRAY:
        return _scan_array(cursor, what)
    return _numbers(kind, cursor.take(_item_size(kind, what, cursor.data), what))[0]


def _scan_array(cursor: _Cursor, what: str) -> _Array:
    item_type, count = cursor.number("<I", what), cursor.number("<Q", what)
    start = cursor.position
    if item_type == _STRING:
        cursor.check_count(count, 8, f"strings in {what}")
        cursor.skip_strings(count, what)
    else:
        cursor.skip(count * _item_size(item_type, what, cursor.data), what)
    return _Array(item_type, count, start, cursor.position - start)


def _item_size(kind: int, what: str, data: DataFile) -> int:
    if kind not in _NUMBERS:
        raise UnsupportedModelError(f"{what} has the unknown value type {kind}", where=data.path)
    return np.dtype(_NUMBERS[kind]).itemsize


def _numbers(kind: int, raw: bytes) -> list[Any]:
    values = np.frombuffer(raw, _NUMBERS[kind])
    if kind == _BOOL:
        return [bool(value) for value in values]
    if kind == _FLOAT32:  # the shortest decimal: 1e-05 instead of 9.999999747378752e-06
        return [float(str(value)) for value in values]
    return list(values.tolist())


def _read_array(data: DataFile, key: str, array: _Array) -> list[Any]:
    raw = data.read(array.offset, array.size, f"metadata {key}")
    if array.item_type != _STRING:
        return _numbers(array.item_type, raw)
    texts, position = [], 0
    for _ in range(array.count):
        start = position + 8
        position = start + int.from_bytes(raw[position:start], "little")
        texts.append(_decode(raw[start:position], f"metadata {key}", data))
    return texts


def _decode(raw: bytes, what: str, data: DataFile) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{what} is not UTF-8 text: {error.reason}", where=data.path) from error


def _read_tensor(cursor: _Cursor) -> GGUFTensor:
    name = cursor.name("a tensor's name")
    dimensions = cursor.number("<I", f"tensor {name}")
    if dimensions > MAX_DIMENSIONS:
        raise CheckpointError(
            f"tensor {name} has {dimensions} dimensions, expected at most {MAX_DIMENSIONS}",
            where=cursor.data.path,
        )
    sizes = [cursor.number("<Q", f"tensor {name}") for _ in range(dimensions)]
    shape = check_shape(sizes[::-1], name, cursor.data.path)  # GGUF lists the innermost axis first
    return GGUFTensor(
        name, shape, cursor.number("<I", f"tensor {name}"), cursor.number("<Q", f"tensor {name}")
    )


def _alignment(value: Any, data: DataFile) -> int:
    if not isinstance(value, int) or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise CheckpointError("general.alignment must be a power of two", where=data.path)
    return value


def _place(entries: list[GGUFTensor], base: int, alignment: int, data: DataFile) -> list[GGUFTensor]:
    """The tensors with offsets from the start of the file."""
    for entry in entries:
        if entry.offset % alignment:
            raise CheckpointError(
                f"tensor {entry.name} lies at offset {entry.offset}, expected a multiple of {alignment}",
                where=data.path,
            )
    return [GGUFTensor(e.name, e.shape, e.type_code, base + e.offset) for e in entries]
