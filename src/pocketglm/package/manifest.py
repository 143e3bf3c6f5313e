"""The manifest: what a package says of itself, checked before any other file is opened.

Enters: `manifest.json`, untrusted. Leaves: frozen dataclasses whose every size, offset and name has
been checked against the model's settings; or `PackageError` that names the file and the tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pocketglm.architecture.spec import ModelSpec
from pocketglm.errors import InputError, PackageError
from pocketglm.package.encoding import ALIGNMENT, LinearEntry, TensorEntry, VectorEntry
from pocketglm.package.layout import HEAD_FILE, WeightLayout, block_file, plan_block, plan_head
from pocketglm.quantize.formats import WeightFormat

FORMAT = "pocketglm-package"
VERSION = 1
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 64 << 20
MAX_BLOCKS = 1024
EMBEDDING_BYTES = {"bfloat16": 2, "float32": 4}
EMBEDDING_FILES = {"bfloat16": "embedding.bf16", "float32": "embedding.f32"}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of one file of the package."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything `manifest.json` holds. `source`, `quantization` and `fidelity` are for people and tools."""

    spec: ModelSpec
    embedding_dtype: str  # bfloat16 or float32
    files: Mapping[str, FileEntry]
    weights: Mapping[str, tuple[TensorEntry, ...]]  # weight file -> its tensors, in order
    source: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    fidelity: Mapping[str, Any] | None = None
    graphs: Mapping[str, Any] = field(default_factory=dict)  # kind -> its files and what made them

    @property
    def embedding_file(self) -> str:
        return EMBEDDING_FILES[self.embedding_dtype]

    def to_json(self) -> str:
        """Deterministic text: the same conversion gives the same bytes."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.spec.to_dict(),
            "embedding": {"dtype": self.embedding_dtype},
            "weights": {name: [_entry_to_json(e) for e in entries] for name, entries in self.weights.items()},
            "files": {name: {"size": f.size, "sha256": f.sha256} for name, f in sorted(self.files.items())},
            "source": self.source,
            "quantization": self.quantization,
            "fidelity": self.fidelity,
        }
        if self.graphs:
            data["graphs"] = self.graphs
        return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object) -> Manifest:
        """Parse and check. Raises `PackageError`."""
        data = _parse(text, where)
        try:
            spec = ModelSpec.from_dict(_object(data.get("model"), "model"))
            dtype = _object(data.get("embedding"), "embedding").get("dtype")
            if not isinstance(dtype, str) or dtype not in EMBEDDING_BYTES:
                raise InputError(f"embedding dtype is {dtype!r}, expected bfloat16 or float32")
            manifest = cls(
                spec=spec,
                embedding_dtype=dtype,
                files={
                    _file_name(name): _file_entry(name, value)
                    for name, value in _object(data.get("files"), "files").items()
                },
                weights={
                    _file_name(name): tuple(_entry_from_json(item, name) for item in _list(items, name))
                    for name, items in _object(data.get("weights"), "weights").items()
                },
                source=_object(data.get("source", {}), "source"),
                quantization=_object(data.get("quantization", {}), "quantization"),
                fidelity=None if data.get("fidelity") is None else _object(data["fidelity"], "fidelity"),
                graphs={
                    kind: _object(stamp, f"graphs: {kind}")
                    for kind, stamp in _object(data.get("graphs", {}), "graphs").items()
                },
            )
            check_manifest(manifest)
        except InputError as error:
            raise PackageError(error.message, where=where, hint=_HINT) from None
        return manifest


_HINT = "the package is damaged or was not made by `pocketglm convert`; convert or copy it again"


def check_manifest(manifest: Manifest) -> None:
    """Every tensor of the model is there once, with its shape, inside its file, and none overlap."""
    spec = manifest.spec
    if spec.num_blocks > MAX_BLOCKS:
        raise InputError(f"num_blocks is {spec.num_blocks}, at most {MAX_BLOCKS} are allowed")
    expected = [block_file(i) for i in range(spec.num_blocks)] + [HEAD_FILE]
    if sorted(manifest.weights) != sorted(expected):
        difference = sorted(set(manifest.weights) ^ set(expected))
        raise InputError(f"weight files do not fit {spec.num_blocks} blocks: {', '.join(difference[:4])}")
    for index, name in enumerate(expected):
        formats = {e.name: e.format for e in manifest.weights[name] if isinstance(e, LinearEntry)}
        _check_weight_file(manifest, name, _expected_layout(spec, index, name, formats))
    rows = spec.vocab_size * spec.hidden_size * EMBEDDING_BYTES[manifest.embedding_dtype]
    _check_size(manifest, manifest.embedding_file, rows)


def _expected_layout(
    spec: ModelSpec, index: int, name: str, formats: Mapping[str, WeightFormat]
) -> WeightLayout:
    """The layout a writer would make with the formats the manifest states."""

    def format_of(tensor: str, shape: tuple[int, int]) -> WeightFormat:
        short = tensor.removeprefix(f"block.{index}.")
        if short not in formats:
            raise InputError(f"{name} lacks tensor {short}")
        return formats[short]

    return plan_head(spec, format_of) if name == HEAD_FILE else plan_block(spec, index, format_of)


def _check_weight_file(manifest: Manifest, name: str, layout: WeightLayout) -> None:
    entries = manifest.weights[name]
    found = {entry.name: entry for entry in entries}
    if len(found) != len(entries):
        raise InputError(f"{name} lists a tensor twice")
    if extra := sorted(set(found) - {e.name for e in layout.entries}):
        raise InputError(f"{name} lists tensors the model does not have: {', '.join(extra[:4])}")
    for wanted in layout.entries:
        entry = found.get(wanted.name)
        if entry is None:
            raise InputError(f"{name} lacks tensor {wanted.name}")
        if type(entry) is not type(wanted) or entry.shape != wanted.shape:
            raise InputError(
                f"{name}: {entry.name} has shape {list(entry.shape)}, expected {list(wanted.shape)}"
            )
        if isinstance(entry, LinearEntry) and isinstance(wanted, LinearEntry):
            _check_linear(name, entry, wanted)
    _check_ranges(manifest, name, entries)


def _check_linear(name: str, entry: LinearEntry, wanted: LinearEntry) -> None:
    if entry.bias != wanted.bias:
        raise InputError(
            f"{name}: {entry.name} {'has' if entry.bias else 'lacks'} a bias, the model's settings disagree"
        )
    if entry.codes_offset % ALIGNMENT:
        raise InputError(
            f"{name}: codes of {entry.name} start at {entry.codes_offset}, not on a {ALIGNMENT}-byte boundary"
        )


def _check_ranges(manifest: Manifest, name: str, entries: tuple[TensorEntry, ...]) -> None:
    """Tensors lie inside the file and do not overlap."""
    end, previous = 0, "the start"
    for entry in sorted(entries, key=lambda e: e.offset):
        if entry.offset < end:
            raise InputError(
                f"{name}: {entry.name} at {entry.offset} overlaps {previous}, which ends at {end}"
            )
        if entry.offset % 4 and isinstance(entry, VectorEntry):
            raise InputError(f"{name}: {entry.name} at {entry.offset} is not aligned")
        end, previous = entry.end, entry.name
    listed = manifest.files.get(name)
    if listed is None:
        raise InputError(f"files does not list {name}")
    if listed.size < end:
        raise InputError(f"{name}: {previous} ends at byte {end}, the file has {listed.size}")


def _check_size(manifest: Manifest, name: str, size: int) -> None:
    if name not in manifest.files:
        raise InputError(f"files does not list {name}")
    if manifest.files[name].size != size:
        raise InputError(f"{name} is {manifest.files[name].size} bytes, expected {size}")


def _parse(text: str, where: object) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"not valid JSON ({error})", where=where, hint=_HINT) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise PackageError(f'not a PocketGLM manifest (no "format": "{FORMAT}")', where=where, hint=_HINT)
    version = data.get("version")
    if type(version) is not int or version != VERSION:  # true and 1.0 equal 1
        raise PackageError(
            f"format version is {version!r}, this program reads version {VERSION}",
            where=where,
            hint="upgrade PocketGLM, or convert the checkpoint again with this version",
        )
    return data


def _entry_to_json(entry: TensorEntry) -> dict[str, Any]:
    data: dict[str, Any] = {"name": entry.name, "shape": list(entry.shape), "offset": entry.offset}
    if isinstance(entry, LinearEntry):
        data["bits"] = entry.format.bits
        if entry.format.quantized:
            data |= {"group": entry.format.group, "symmetric": entry.format.symmetric}
        data["bias"] = entry.bias
    return data


def _entry_from_json(item: object, where: str) -> TensorEntry:
    data = _object(item, where)
    name, offset, shape = data.get("name"), data.get("offset"), data.get("shape")
    if not isinstance(name, str) or not _is_size(offset):
        raise InputError(f"{where}: a tensor without a name or with offset {offset!r}")
    if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(map(_is_size, shape)):
        raise InputError(f"{where}: {name} has shape {shape!r}")
    if len(shape) == 1:
        return VectorEntry(name, (shape[0],), offset)
    bits, group = data.get("bits"), data.get("group", 64)
    symmetric, bias = data.get("symmetric", False), data.get("bias", False)
    if (
        type(bits) is not int
        or type(group) is not int
        or type(symmetric) is not bool
        or type(bias) is not bool
    ):
        raise InputError(f"{where}: {name} has a malformed weight format")
    return LinearEntry(name, (shape[0], shape[1]), offset, WeightFormat(bits, group, symmetric), bias)  # type: ignore[arg-type]


def _file_entry(name: str, value: object) -> FileEntry:
    data = _object(value, name)
    size, digest = data.get("size"), data.get("sha256")
    if not _is_size(size) or not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InputError(f"files: {name} has size {size!r} and sha256 {str(digest)[:70]!r}")
    return FileEntry(size, digest)


def _file_name(name: str) -> str:
    if not _FILE_NAME.match(name) or name == MANIFEST_FILE:
        raise InputError(f"{name[:80]!r} is not an allowed file name")
    return name


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be an object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list")
    return value


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 48
