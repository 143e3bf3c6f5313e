"""From what the user named to an open checkpoint.

Enters: a path, or a model's name on a hub. Leaves: a checkpoint of the right format, with its
configuration read and the place of every tensor checked. A local path always comes before a hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketglm.checkpoint.files import DataFile, OpenFiles, opened_files, read_json_object, read_weight_map
from pocketglm.checkpoint.gguf_format import open_gguf
from pocketglm.checkpoint.gguf_header import GGUF_MAGIC
from pocketglm.checkpoint.hub import download, parse_hub_name
from pocketglm.checkpoint.mnn_llm import is_mnn_llm, open_mnn_llm
from pocketglm.checkpoint.safetensors_format import read_safetensors
from pocketglm.checkpoint.stored import Placement, StoredCheckpoint
from pocketglm.checkpoint.torch_format import read_torch
from pocketglm.errors import CheckpointError

Format = Literal["safetensors", "torch", "gguf"]

_READERS: dict[str, Callable[[DataFile], dict[str, Placement]]] = {
    "safetensors": read_safetensors,
    "torch": read_torch,
}

_USUAL_NAMES: tuple[tuple[Format, str], ...] = (
    ("safetensors", "model.safetensors"),
    ("torch", "pytorch_model.bin"),
)
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.(safetensors|bin)")


@dataclass(frozen=True)
class Weights:
    """The weight files of a checkpoint: one file, or an index and the shards beside it."""

    format: Format
    path: Path
    sharded: bool = False


def open_checkpoint(path_or_name: str | Path) -> StoredCheckpoint:
    """Open a source model: a directory (of MNN-LLM too), a single weight file, or a hub's name for one.

    Names are `org/name` or `hf:org/name` (Hugging Face) and `ms:org/name` (ModelScope). Raises
    `CheckpointError` where the model is missing, damaged or of an unknown format. Close it, or use
    it in a `with` statement.
    """
    path = _local_path(path_or_name)
    if is_mnn_llm(path):
        return open_mnn_llm(path)
    weights = find_weights(path)
    if weights.format == "gguf":
        return open_gguf(weights.path, path)
    directory = weights.path.parent
    config = _read_config(directory)
    with opened_files() as files:
        placements = _read_placements(weights, files)
        return StoredCheckpoint(weights.format, path, directory, config, placements, files)


def _local_path(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.exists():
        return path
    if isinstance(path_or_name, str) and (model := parse_hub_name(path_or_name)):
        return download(model)
    raise CheckpointError(
        "no such file or directory",
        where=path_or_name,
        hint="give a directory, a weight file, or a model's name on a hub (org/name, ms:org/name)",
    )


def find_weights(path: Path) -> Weights:
    """The weights at `path`. In a directory, safetensors come before torch files, those before GGUF."""
    if not path.is_dir():
        return _weights_file(path)
    for format_, single in _USUAL_NAMES:
        if (path / single).is_file():
            return Weights(format_, path / single)
        if (path / f"{single}.index.json").is_file():
            return Weights(format_, path / f"{single}.index.json", sharded=True)
    return _only_weights(path)


def _only_weights(directory: Path) -> Weights:
    """The one weight file of a directory that has none of the usual names."""
    names = sorted(entry.name for entry in directory.iterdir())
    found = [name for name in names if name.endswith((".safetensors", ".gguf"))]
    if len(found) == 1 and not _SHARD.fullmatch(found[0]):
        return _weights_file(directory / found[0])
    if shards := [name for name in names if _SHARD.fullmatch(name)]:
        raise CheckpointError(
            f"has shards ({shards[0]}, ...) but no index of them",
            where=directory,
            hint="download model.safetensors.index.json or pytorch_model.bin.index.json too",
        )
    if found:
        raise CheckpointError(
            f"has several weight files: {', '.join(found[:8])}", where=directory, hint="name one of the files"
        )
    is_package = {"manifest.json", "head.mnn.weight"} <= set(names)
    raise CheckpointError(
        "has no weights: expected model.safetensors or pytorch_model.bin (or the index of their shards), "
        "or a .gguf file",
        where=directory,
        hint="this is a package already; name the checkpoint it was made from" if is_package else None,
    )


def _weights_file(path: Path) -> Weights:
    """A file by its contents, since downloads are often renamed."""
    if path.name.endswith(".index.json"):
        return Weights("safetensors" if ".safetensors" in path.name else "torch", path, sharded=True)
    data = DataFile(path)
    try:
        magic = data.read(0, min(4, data.size))
    finally:
        data.close()
    if magic == GGUF_MAGIC or path.suffix == ".gguf":
        return Weights("gguf", path)
    is_torch = path.suffix in (".bin", ".pt", ".pth") or magic == b"PK\x03\x04"
    return Weights("torch" if is_torch else "safetensors", path)


def _read_config(directory: Path) -> Mapping[str, object]:
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(
            "has no config.json", where=directory, hint="put the model's config.json beside its weights"
        )
    return read_json_object(path)


def _read_placements(weights: Weights, files: OpenFiles) -> dict[str, Placement]:
    read = _READERS[weights.format]
    if not weights.sharded:
        return read(files.open(weights.path))
    weight_map = read_weight_map(weights.path)
    shards = {path: read(files.open(path)) for path in dict.fromkeys(weight_map.values())}
    placements = {}
    for name, path in weight_map.items():
        if name not in shards[path]:
            raise CheckpointError(
                f"tensor {name} is missing: {weights.path.name} says that it is here",
                where=path,
                hint="download the file again",
            )
        placements[name] = shards[path][name]
    return placements
