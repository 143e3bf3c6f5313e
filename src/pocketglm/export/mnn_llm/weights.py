"""The weight files of an MNN-LLM directory, made of the package's own bytes.

Enters: an open package. Leaves: `llm.mnn.weight`, in which the package's weight files follow one another,
and the embedding rows. Nothing is quantized or rounded: every tensor keeps its bytes, only its place
changes. The hash of every file is checked on the way.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import IntegrityError
from pocketglm.package.encoding import TensorEntry, align
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import COPY_AGAIN, Package
from pocketglm.package.writer import disk_errors

WEIGHT_FILE = "llm.mnn.weight"
EMBEDDING_FILE = "embeddings_bf16.bin"
COPY_BYTES = 4 << 20
ROWS_AT_ONCE = 1024

EmbeddingForm = Literal["bfloat16", "float16", "three-bfloat16"]
"""How MNN reads a row: bfloat16 from its own file; float16 from behind the weights; or bfloat16 rows three
times as wide, whose thirds the graph adds up: 3 x 8 bits of significand are float32's 24."""

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class PlacedFile:
    """A weight file of the package at `offset` of `llm.mnn.weight`; its entries count from there on."""

    name: str
    offset: int
    size: int
    entries: tuple[TensorEntry, ...]


@dataclass(frozen=True)
class WeightPlan:
    """Where everything will lie. `tensors` maps full names (`block.3.mlp.down`) to entries."""

    files: tuple[PlacedFile, ...]
    embedding: EmbeddingForm
    embedding_offset: int  # in WEIGHT_FILE for float16, else 0
    embedding_bytes: int

    @property
    def tensors(self) -> dict[str, TensorEntry]:
        return {
            prefix + entry.name: entry
            for index, file in enumerate(self.files)
            for prefix in (f"block.{index}." if file.name != HEAD_FILE else "",)
            for entry in file.entries
        }

    @property
    def weight_bytes(self) -> int:
        inside = self.embedding_bytes if self.embedding == "float16" else 0
        return max(self.files[-1].offset + self.files[-1].size, self.embedding_offset) + inside

    @property
    def size(self) -> int:
        """Bytes of the weight file and the embedding."""
        outside = 0 if self.embedding == "float16" else self.embedding_bytes
        return self.weight_bytes + outside


def plan_weights(package: Package) -> WeightPlan:
    """Place the package's files one after the other, codes on the boundaries they had."""
    manifest, spec = package.manifest, package.spec
    files, offset = [], 0
    for name in [*map(block_file, range(spec.num_blocks)), HEAD_FILE]:
        offset = align(offset)
        moved = tuple(dataclasses.replace(e, offset=e.offset + offset) for e in manifest.weights[name])
        size = manifest.files[name].size
        files.append(PlacedFile(name, offset, size, moved))
        offset += size
    form = embedding_form(package)
    width = {"bfloat16": 2, "float16": 2, "three-bfloat16": 6}[form]
    rows = spec.vocab_size * spec.hidden_size * width
    return WeightPlan(tuple(files), form, align(offset) if form == "float16" else 0, rows)


def embedding_form(package: Package) -> EmbeddingForm:
    """The narrowest form that keeps every value of the package's embedding."""
    if package.manifest.embedding_dtype == "bfloat16":
        return "bfloat16"
    forms: list[EmbeddingForm] = ["bfloat16", "float16"]
    for _, rows in _float32_rows(package):
        forms = [form for form in forms if _keeps(form, rows)]
        if not forms:
            return "three-bfloat16"
    return forms[0]


def write_weights(package: Package, plan: WeightPlan, directory: Path, on_bytes: OnBytes) -> None:
    """Write `llm.mnn.weight` and the embedding. Raises `IntegrityError` for a damaged package."""
    path = directory / WEIGHT_FILE
    with disk_errors(path), open(path, "wb") as target:
        target.truncate(plan.weight_bytes)
        for file in plan.files:
            target.seek(file.offset)
            for data in _checked_bytes(package, file.name):
                target.write(data)
                on_bytes(len(data))
        if plan.embedding == "float16":
            target.seek(plan.embedding_offset)
            _write_all(target.write, _float16_rows(package), on_bytes)
    if plan.embedding == "float16":
        return
    path = directory / EMBEDDING_FILE
    with disk_errors(path), open(path, "wb") as target:
        if package.manifest.embedding_dtype == "bfloat16":
            _write_all(target.write, _checked_bytes(package, package.manifest.embedding_file), on_bytes)
        else:
            parts = 3 if plan.embedding == "three-bfloat16" else 1
            rows = (_split(values, parts).tobytes() for _, values in _float32_rows(package))
            _write_all(target.write, rows, on_bytes)


def _write_all(write: Callable[[bytes], object], pieces: Iterable[bytes], on_bytes: OnBytes) -> None:
    for data in pieces:
        write(data)
        on_bytes(len(data))


def _checked_bytes(package: Package, name: str) -> Iterator[bytes]:
    """A file of the package in pieces; raises at its end where the hash is not the manifest's."""
    digest, path = hashlib.sha256(), package.path / name
    with open(path, "rb", buffering=0) as source:
        while data := source.read(COPY_BYTES):
            digest.update(data)
            yield data
    if digest.hexdigest() != package.manifest.files[name].sha256:
        raise IntegrityError("its SHA-256 differs from the manifest's", where=path, hint=COPY_AGAIN)


def _float32_rows(package: Package) -> Iterator[tuple[int, NDArray[np.float32]]]:
    vocab_size = package.spec.vocab_size
    for start in range(0, vocab_size, ROWS_AT_ONCE):
        yield start, package.embedding_rows(range(start, min(start + ROWS_AT_ONCE, vocab_size)))


def _float16_rows(package: Package) -> Iterator[bytes]:
    return (rows.astype("<f2").tobytes() for _, rows in _float32_rows(package))


def _keeps(form: EmbeddingForm, rows: NDArray[np.float32]) -> bool:
    if form == "bfloat16":
        return not (rows.view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool((rows.astype(np.float16).astype(np.float32) == rows).all())


def _split(rows: NDArray[np.float32], parts: int) -> NDArray[np.uint16]:
    """[rows, n] -> bfloat16 [rows, parts * n]: high parts first, each what the ones before leave over."""
    columns, rest = [], rows
    for _ in range(parts):
        high = rest.view(np.uint32) & np.uint32(0xFFFF0000)
        columns.append((high >> 16).astype("<u2"))
        rest = rest - high.view(np.float32)
    return np.concatenate(columns, axis=1)
