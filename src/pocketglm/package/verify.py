"""Everything a package can be checked for without running it; `pocketglm verify` prints the result.

Enters: a package directory. Leaves: a list of what was checked, or the first error found. Hashes of
all files, MNN headers, padding codes, finite scales, norm weights, biases and embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import IntegrityError, PackageError
from pocketglm.package.encoding import LinearEntry, TensorEntry, linear_header
from pocketglm.package.reader import COPY_AGAIN, Package, StoredLinear, WeightFile
from pocketglm.package.writer import hash_file

ROWS_AT_ONCE = 4096
Progress = Callable[[str, int, int], None]
"""(file just checked, bytes done, bytes in all)."""


@dataclass(frozen=True)
class Verification:
    """What was found sound."""

    files: int
    bytes: int
    tensors: int


def verify_package(path: str | Path, progress: Progress | None = None) -> Verification:
    """Check every byte. Raises `PackageError` or `IntegrityError` naming the file and the tensor."""
    with Package.open(path) as package:
        manifest = package.manifest
        total = sum(entry.size for entry in manifest.files.values())
        done = tensors = 0
        for name, entry in manifest.files.items():
            if hash_file(package.path / name) != entry.sha256:
                raise IntegrityError(
                    "its SHA-256 differs from the manifest's", where=package.path / name, hint=COPY_AGAIN
                )
            if name in manifest.weights:
                weights = WeightFile(package.path / name, manifest.weights[name])
                for tensor in manifest.weights[name]:
                    _check_tensor(weights, tensor)
                    tensors += 1
            elif name == manifest.embedding_file:
                _check_embedding(package)
                tensors += 1
            elif name.endswith(".json"):
                package.json(name)
            done += entry.size
            if progress:
                progress(name, done, total)
        return Verification(len(manifest.files), total, tensors)


def _check_tensor(weights: WeightFile, entry: TensorEntry) -> None:
    if not isinstance(entry, LinearEntry):
        _need_finite(weights.vector(entry.name), weights.path, entry.name)
        return
    linear = weights.linear(entry.name)
    if entry.format.quantized:
        header = np.memmap(weights.path, np.uint8, "r", entry.offset, entry.header_bytes).tobytes()
        if header != linear_header(entry):
            raise PackageError(f"the MNN header of {entry.name} does not fit its shape", where=weights.path)
        _check_padding(linear, weights.path)
    if linear.bias is not None:
        _need_finite(linear.bias, weights.path, f"{entry.name}.bias")
    floats = linear.codes if linear.alpha is None else linear.alpha
    for start in range(0, entry.shape[0], ROWS_AT_ONCE):
        _need_finite(floats[start : start + ROWS_AT_ONCE], weights.path, entry.name)


def _check_padding(linear: StoredLinear, path: Path) -> None:
    """Codes past the last input are 0 (stored as 8 or 128)."""
    columns = linear.shape[1]
    if linear.format.stored_inputs(columns) == columns:
        return
    if linear.format.bits == 8:
        sound = bool((linear.codes[:, columns:] == 128).all())
    else:
        nibbles = np.stack([linear.codes >> 4, linear.codes & 15], -1).reshape(linear.shape[0], -1)
        sound = bool((nibbles[:, columns:] == 8).all())
    if not sound:
        raise PackageError(f"padding codes of {linear.name} are not zero", where=path)


def _check_embedding(package: Package) -> None:
    vocab = package.spec.vocab_size
    for start in range(0, vocab, ROWS_AT_ONCE):
        rows = package.embedding_rows(range(start, min(start + ROWS_AT_ONCE, vocab)))
        _need_finite(rows, package.path / package.manifest.embedding_file, "embedding")


def _need_finite(values: NDArray[Any], path: Path, name: str) -> None:
    if not np.isfinite(values).all():
        raise PackageError(f"{name} holds values that are not finite", where=path)
