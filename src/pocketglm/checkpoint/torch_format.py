"""PyTorch files (`pytorch_model*.bin`): a zip archive of one pickle and one entry for each storage.

Enters: an open file. Leaves: checked placements of its tensors. The archive stores entries without
compression, so the rows are read in place; torch is not needed.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from dataclasses import dataclass

from pocketglm.checkpoint.elements import PLAIN_TYPES
from pocketglm.checkpoint.files import DataFile
from pocketglm.checkpoint.source import TensorInfo
from pocketglm.checkpoint.stored import Placement, check_shape
from pocketglm.checkpoint.torch_pickle import MAX_PICKLE_BYTES, PickledTensor, Storage, read_state_dict
from pocketglm.errors import CheckpointError, UnsupportedModelError

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled magic number that opens files of torch before 1.6 (torch/serialization.py)."""

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # PKWARE APPNOTE 4.3.7
_LOCAL_MAGIC = b"PK\x03\x04"


def read_torch(data: DataFile) -> dict[str, Placement]:
    """Name -> placement of every tensor of a state dict, with bounds checked."""
    archive = _Archive(data)
    tensors = read_state_dict(archive.read("data.pkl", MAX_PICKLE_BYTES), str(data.path))
    archive.check_byte_order()
    return {name: _placement(archive, name, tensor) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class _Entry:
    offset: int
    size: int


class _Archive:
    """Where the entries of the zip archive lie in the file."""

    def __init__(self, data: DataFile) -> None:
        self.data = data
        self._check_kind()
        self._infos = {info.filename: info for info in _directory(data)}
        pickles = [name for name in self._infos if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(
                f"has {len(pickles)} data.pkl entries, expected 1: not a file of torch.save", where=data.path
            )
        self._prefix = pickles[0].removesuffix("data.pkl")
        if self._prefix + "constants.pkl" in self._infos:
            raise UnsupportedModelError("is a TorchScript program, expected a state dict", where=data.path)
        self._entries: dict[str, _Entry] = {}

    def _check_kind(self) -> None:
        start = self.data.read(0, min(self.data.size, len(LEGACY_MAGIC)))
        if start.startswith(_LOCAL_MAGIC):
            return
        if start == LEGACY_MAGIC:
            raise UnsupportedModelError(
                "is in torch's old format (before 1.6)",
                where=self.data.path,
                hint="convert it: torch.save(torch.load(path, weights_only=True), new_path)",
            )
        raise CheckpointError("is not a torch file: expected a zip archive", where=self.data.path)

    def check_byte_order(self) -> None:
        """torch writes the numbers in the order of the machine that saved them."""
        if self._prefix + "byteorder" in self._infos and self.read("byteorder", 16) != b"little":
            raise UnsupportedModelError(
                "was saved on a big-endian machine",
                where=self.data.path,
                hint="load and save it with torch on a little-endian machine",
            )

    def read(self, name: str, limit: int) -> bytes:
        """A small entry as a whole."""
        entry = self.entry(name)
        if entry.size > limit:
            raise CheckpointError(
                f"archive entry {name} is {entry.size} bytes long, expected at most {limit}",
                where=self.data.path,
            )
        return self.data.read(entry.offset, entry.size, f"archive entry {name}")

    def entry(self, name: str) -> _Entry:
        """Where the bytes of `name` (without the archive's own prefix) lie."""
        if name not in self._entries:
            self._entries[name] = self._locate(name)
        return self._entries[name]

    def _locate(self, name: str) -> _Entry:
        info = self._infos.get(self._prefix + name)
        if info is None:
            raise CheckpointError(f"archive entry {name} is missing", where=self.data.path)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointError(
                f"archive entry {name} is compressed or encrypted, expected plain bytes",
                where=self.data.path,
                hint="save the file again with torch.save",
            )
        header = self.data.read(info.header_offset, _LOCAL_HEADER.size, f"archive entry {name}")
        magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if magic != _LOCAL_MAGIC or info.file_size != info.compress_size:
            raise CheckpointError(f"archive entry {name} has a damaged header", where=self.data.path)
        if offset + info.file_size > self.data.size:
            found = max(0, self.data.size - offset)
            raise CheckpointError(
                f"archive entry {name} is cut short: expected {info.file_size} bytes, found {found}",
                where=self.data.path,
                hint="download the file again",
            )
        return _Entry(offset, info.file_size)


class _Window(io.RawIOBase):
    """The file as a seekable stream, for zipfile."""

    def __init__(self, data: DataFile) -> None:
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._data.size}[whence]
        if base + offset < 0:
            raise OSError("negative position")
        self._position = base + offset
        return self._position

    def read(self, count: int | None = -1) -> bytes:
        left = max(0, self._data.size - self._position)
        count = left if count is None or count < 0 else min(count, left)
        piece = self._data.read(self._position, count)
        self._position += count
        return piece


def _directory(data: DataFile) -> list[zipfile.ZipInfo]:
    """The central directory. A file that was cut short has lost it, since it stands at the end."""
    try:
        with zipfile.ZipFile(_Window(data)) as archive:
            return archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        OSError,
        struct.error,
        OverflowError,
    ) as error:
        raise CheckpointError(
            f"the zip archive is cut short or damaged ({error}); found {data.size} bytes",
            where=data.path,
            hint="download the file again",
        ) from error


def _placement(archive: _Archive, name: str, tensor: PickledTensor) -> Placement:
    path, element = archive.data.path, PLAIN_TYPES[tensor.storage.dtype]
    entry = _storage_entry(archive, name, tensor.storage)
    shape = check_shape(tensor.shape, name, path)
    stride = check_shape(tensor.stride, name, path)
    if len(stride) != len(shape):
        raise CheckpointError(
            f"tensor {name} has {len(shape)} dimensions but {len(stride)} strides", where=path
        )
    elements = math.prod(shape)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if elements and max(last, elements - 1) >= tensor.storage.count:  # strides of 0 repeat elements
        raise CheckpointError(
            f"tensor {name} has {elements} elements and reaches element {last} of a storage of "
            f"{tensor.storage.count}",
            where=path,
        )
    size = element.byte_size(elements)
    return Placement(
        TensorInfo(name, element.name, shape, size, path),
        element,
        archive.data,
        entry.offset + element.byte_size(tensor.offset),
        _uncommon_strides(name, shape, stride, archive),
    )


def _storage_entry(archive: _Archive, name: str, storage: Storage) -> _Entry:
    entry = archive.entry(f"data/{storage.key}")
    expected = PLAIN_TYPES[storage.dtype].byte_size(storage.count)
    if entry.size < expected:
        raise CheckpointError(
            f"tensor {name} needs {expected} bytes, its archive entry data/{storage.key} has {entry.size}",
            where=archive.data.path,
        )
    return entry


def _uncommon_strides(
    name: str, shape: tuple[int, ...], stride: tuple[int, ...], archive: _Archive
) -> tuple[int, int] | None:
    """None for a tensor stored row after row; the strides of a matrix with another order."""
    expected = 1
    common = True
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        common = common and (size == 1 or step == expected)
        expected *= size
    if common or not math.prod(shape):
        return None
    if len(shape) == 2 and 1 in stride:
        return stride[0], stride[1]
    raise UnsupportedModelError(
        f"tensor {name} is stored with strides {list(stride)} for shape {list(shape)}",
        where=archive.data.path,
        hint="save the tensors with .contiguous()",
    )
