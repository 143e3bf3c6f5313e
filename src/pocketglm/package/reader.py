"""Opening a package and reading its tensors in place.

Enters: a directory, untrusted. Leaves: memory-mapped weights and embedding rows. Opening checks the
manifest, every size, offset and overlap. The hash of a small file is checked when it is read, those of
the weight files by `pocketglm verify`: reading gigabytes at every start would be slow.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.architecture.spec import ModelSpec
from pocketglm.errors import InputError, IntegrityError, PackageError
from pocketglm.package.encoding import LinearEntry, VectorEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest
from pocketglm.package.writer import partial_of
from pocketglm.quantize.bfloat16 import from_bfloat16
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import QuantizedRows, dequantize_rows

Float32 = NDArray[np.float32]
MAX_TEXT_BYTES = 256 << 20
"""Largest tokenizer or template file that is read into memory."""


@dataclass(frozen=True)
class StoredLinear:
    """A linear layer as stored. Arrays are read-only views of the mapped file.

    codes: uint8 [out, code_bytes], or float16/float32 [out, in] for unquantized formats.
    alpha: float16 [out, groups, 2] (zero, scale), [out, groups, 1] (scale) if symmetric, or None.
    bias: float32 [out] or None.
    """

    name: str
    shape: tuple[int, int]
    format: WeightFormat
    codes: NDArray[Any]
    alpha: NDArray[np.float16] | None
    bias: Float32 | None

    def dequantize(self, start: int = 0, count: int | None = None) -> Float32:
        """Rows start..start+count as float32 [count, in]."""
        stop = self.shape[0] if count is None else start + count
        codes = self.codes[start:stop]
        if self.alpha is None:
            return codes.astype(np.float32)
        rows = QuantizedRows(codes, self.alpha[start:stop])
        return dequantize_rows(rows, self.format, self.shape[1])


class WeightFile:
    """One mapped weight file: a block or the head."""

    def __init__(self, path: Path, entries: Iterable[LinearEntry | VectorEntry]) -> None:
        self.path = path
        self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        self._linears = {e.name: e for e in entries if isinstance(e, LinearEntry)}
        self._vectors = {e.name: e for e in entries if isinstance(e, VectorEntry)}

    @property
    def linears(self) -> tuple[str, ...]:
        return tuple(self._linears)

    @property
    def vectors(self) -> tuple[str, ...]:
        return tuple(self._vectors)

    def entry(self, name: str) -> LinearEntry:
        """Where a linear layer's bytes lie, for engines that map the file themselves."""
        if name not in self._linears:
            raise PackageError(f"no linear layer named {name}", where=self.path)
        return self._linears[name]

    def linear(self, name: str) -> StoredLinear:
        """A linear layer, as views of the file."""
        entry = self.entry(name)
        out, columns = entry.shape
        raw = self._view(entry.codes_offset, entry.codes_bytes)
        alpha = bias = None
        if entry.format.quantized:
            codes: NDArray[Any] = raw.reshape(out, -1)
            groups = entry.format.groups(columns)
            alpha = self._view(entry.alpha_offset, entry.alpha_bytes).view("<f2").reshape(out, groups, -1)
        else:
            codes = raw.view("<f2" if entry.format.bits == 16 else "<f4").reshape(out, columns)
        if entry.bias:
            bias = self._view(entry.bias_offset, entry.bias_bytes).view("<f4")
        return StoredLinear(name, entry.shape, entry.format, codes, alpha, bias)

    def vector(self, name: str) -> Float32:
        """A norm's weight or bias, float32 [n]."""
        if name not in self._vectors:
            raise PackageError(f"no vector named {name}", where=self.path)
        entry = self._vectors[name]
        values: Float32 = self._view(entry.offset, entry.end - entry.offset).view("<f4")
        return values

    def _view(self, offset: int, size: int) -> NDArray[np.uint8]:
        return self._bytes[offset : offset + size]


class Package:
    """An opened package. Weight files are mapped when first asked for."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._files: dict[str, WeightFile] = {}
        self._embedding = os.open(path / manifest.embedding_file, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    @classmethod
    def open(cls, path: str | Path) -> Package:
        """Open and check a package directory. Raises `PackageError` or `IntegrityError`."""
        directory = Path(path)
        manifest = read_manifest(directory)
        for name, entry in manifest.files.items():
            check_file_size(directory / name, entry.size)
        return cls(directory, manifest)

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what logits depend on: the model's settings, embedding and weights.

        Adding graphs to a package, or another chat template, does not change it.
        """
        manifest = self.manifest
        computed = [manifest.embedding_file, *manifest.weights]
        data = {
            "model": manifest.spec.to_dict(),
            "files": {name: manifest.files[name].sha256 for name in sorted(computed)},
        }
        return sha256(json.dumps(data, sort_keys=True).encode())

    def block(self, index: int) -> WeightFile:
        return self._weight_file(block_file(index))

    def head(self) -> WeightFile:
        return self._weight_file(HEAD_FILE)

    def forget(self, name: str) -> None:
        """Unmap a weight file once its last view is gone."""
        self._files.pop(name, None)

    def embedding_rows(self, token_ids: Iterable[int]) -> Float32:
        """Rows of the embedding, float32 [count, hidden], read from disk one by one."""
        spec, wide = self.spec, self.manifest.embedding_dtype == "float32"
        row_bytes = spec.hidden_size * (4 if wide else 2)
        rows = bytearray()
        for token in token_ids:
            if not 0 <= token < spec.vocab_size:
                raise InputError(f"token id {token} is outside the vocabulary of {spec.vocab_size}")
            rows += _read_exactly(
                self._embedding, row_bytes, int(token) * row_bytes, self.manifest.embedding_file
            )
        if wide:
            return np.frombuffer(rows, "<f4").reshape(-1, spec.hidden_size).astype(np.float32)
        return from_bfloat16(np.frombuffer(rows, "<u2")).reshape(-1, spec.hidden_size)

    def text(self, name: str) -> str | None:
        """A small UTF-8 file of the package, its hash checked; None where the package has none."""
        entry = self.manifest.files.get(name)
        if entry is None:
            return None
        path = self.path / name
        if entry.size > MAX_TEXT_BYTES:
            raise PackageError(f"is {entry.size} bytes, at most {MAX_TEXT_BYTES} are read", where=path)
        data = path.read_bytes()
        if sha256(data) != entry.sha256:
            raise IntegrityError("its SHA-256 differs from the manifest's", where=path, hint=COPY_AGAIN)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PackageError(f"is not UTF-8 ({error})", where=path) from None

    def json(self, name: str) -> dict[str, Any] | None:
        """A small JSON object of the package, or None where the package has none."""
        text = self.text(name)
        if text is None:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PackageError(f"not valid JSON ({error})", where=self.path / name) from None
        if not isinstance(data, dict):
            raise PackageError("must hold a JSON object", where=self.path / name)
        return data

    def close(self) -> None:
        self._files.clear()
        if self._embedding >= 0:
            os.close(self._embedding)
            self._embedding = -1

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _weight_file(self, name: str) -> WeightFile:
        if name not in self._files:
            self._files[name] = WeightFile(self.path / name, self.manifest.weights[name])
        return self._files[name]


COPY_AGAIN = "copy or convert the package again"


def sha256(data: bytes) -> str:
    """In hexadecimal. A package that is only run has little or nothing to hash, and OpenSSL is large."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """The checked manifest of a package directory."""
    path = directory / MANIFEST_FILE
    if not path.is_file():
        partial = partial_of(directory)
        hint = "finish it with `pocketglm convert ... --resume`" if partial.is_dir() else None
        raise PackageError(
            f"no package here ({MANIFEST_FILE} not found)",
            where=directory,
            hint=hint or "name a directory made by `pocketglm convert`",
        )
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise PackageError(f"is larger than {MAX_MANIFEST_BYTES} bytes", where=path)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"is not UTF-8 ({error})", where=path) from None
    return Manifest.from_json(text, path)


def check_file_size(path: Path, size: int) -> None:
    """The file is a regular file of exactly `size` bytes."""
    try:
        status = path.stat()
    except OSError as error:
        raise PackageError(f"cannot be read ({error.strerror})", where=path, hint=COPY_AGAIN) from None
    if not stat.S_ISREG(status.st_mode):
        raise PackageError("is not a regular file", where=path)
    if status.st_size != size:
        raise IntegrityError(
            f"is {status.st_size} bytes, the manifest says {size}", where=path, hint=COPY_AGAIN
        )


def _read_exactly(descriptor: int, size: int, offset: int, name: str) -> bytes:
    data = os.pread(descriptor, size, offset)
    if len(data) != size:
        raise IntegrityError(f"ends before byte {offset + size}", where=name, hint=COPY_AGAIN)
    return data
