"""The files that peers load, made once and kept in a folder of the user's.

Enters: a case and the kind of a model. Leaves: a path, and the bytes of its weights. Everything is written
under a temporary name first, so that what has its name is whole.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peers import shape as shapes
from peers.registry import Environments, Peer, child_line
from peers.shape import Shape

SHAPES = {
    "block8": shapes.BLOCK8,
    "block8-kv2": shapes.BLOCK8_KV2,
    "chatglm-6b": shapes.FULL,
    "tiny": shapes.TINY,
}
SMOLLM2_CONVERSION = ("--group", "32")  # Q4_1's own groups, so the values stay what they are


@dataclass(frozen=True)
class Case:
    """One model for everybody. `given` are files of the user's by kind of model."""

    name: str
    folder: Path
    given: Mapping[str, Path]

    @property
    def shape(self) -> Shape | None:
        """None where the model is a real one."""
        return SHAPES.get(self.name)

    def vocabulary(self) -> int:
        return self.shape.vocabulary if self.shape else 49152

    def prepare(self, peer: Peer, environments: Environments) -> Path:
        """The peer's model; made if it is not there."""
        if peer.model in self.given:
            return self.given[peer.model]
        target = self.folder / self.name / peer.model
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"partial-{target.name}")
        remove(partial)
        print(f"writing {target}", file=sys.stderr)
        if peer.model == "mnn-llm":
            source = self.prepare(_package_peer(peer), environments)
            _pocketglm("export", source, "--format", "mnn-llm", "-o", partial)
        elif self.shape is None:
            _pocketglm("convert", self.given["model.gguf"], "-o", partial, *SMOLLM2_CONVERSION)
        else:
            python = environments.python(peer.name) if peer.package == "openvino" else sys.executable
            line = child_line(python, "write", peer.model, json.dumps(self.shape.to_dict()), str(partial))
            subprocess.run(line, env=environments.variables(peer.name), check=True)
        partial.rename(target)
        return target


def _package_peer(peer: Peer) -> Peer:
    from dataclasses import replace

    return replace(peer, model="package", package="pocketglm")


def _pocketglm(*arguments: object) -> None:
    line = [sys.executable, "-m", "pocketglm", *map(str, arguments), "--json"]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def files_of(model: Path) -> list[Path]:
    return sorted(p for p in model.rglob("*") if p.is_file()) if model.is_dir() else [model]


def weight_file_bytes(model: Path) -> int:
    """Bytes of the files that hold weights, the embedding apart where it is a file of its own."""
    names = [p for p in files_of(model) if not p.name.startswith(("embedding", "tokenizer"))]
    return sum(path.stat().st_size for path in names)


def warm(model: Path) -> None:
    """Read all files once, so that they lie in the page cache."""
    buffer = memoryview(bytearray(16 << 20))
    for path in files_of(model):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
