"""The original weights as a float32 package for a while, to compare a quantized one with.

Enters: a checkpoint and the manifest of the package made from it. Leaves: a temporary package in the
user's cache folder, with the same vocabulary; removed at the end. The reference engine streams it from
disk where it does not fit into memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketglm.convert.pipeline import Progress, convert
from pocketglm.convert.settings import ConvertSettings
from pocketglm.convert.user_cache import cache_directory
from pocketglm.errors import InputError
from pocketglm.package.manifest import Manifest
from pocketglm.package.reader import read_manifest
from pocketglm.package.writer import disk_errors
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings


@contextmanager
def float32_package(
    source: str | Path, like: Manifest, progress: Progress | None = None, threads: int | None = None
) -> Iterator[Path]:
    """Convert `source` losslessly; yields the package's path.

    Raises `InputError` where it is another model than the one `like` describes.
    """
    parent = cache_directory()
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="compare-", dir=parent))
    try:
        exact = WeightFormat(32)
        settings = ConvertSettings(
            quantize=QuantizeSettings(exact, exact),
            keep_tokens=_kept_tokens(directory, like),
            report=False,
            threads=threads or 2,
        )
        path = convert(source, directory / "original", settings, progress)
        _check_same_model(read_manifest(path), like, source)
        yield path
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _kept_tokens(directory: Path, like: Manifest) -> Path | None:
    """A `--keep-tokens` file with the tokens that `like` kept, or None if it kept all."""
    runs = like.source.get("kept_rows")
    if not runs:
        return None
    path = directory / "tokens.txt"
    path.write_text("".join(f"{start + i}\n" for start, count in runs for i in range(count)), "ascii")
    return path


def _check_same_model(found: Manifest, like: Manifest, source: object) -> None:
    if found.spec != like.spec:
        raise InputError(
            f"is another model than the package: {found.spec.family} with {found.spec.num_blocks} blocks of "
            f"{found.spec.hidden_size}, expected {like.spec.family} with {like.spec.num_blocks} of "
            f"{like.spec.hidden_size}",
            where=source,
            hint="compare with the checkpoint that the package was made from",
        )
