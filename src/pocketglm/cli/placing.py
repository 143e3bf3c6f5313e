"""Where the blocks of a model go, as commands are told it.

Enters: `--place`, `--gpu-layers` and `--gpu-memory`. Leaves: a placement, or None where nothing was said.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketglm.errors import InputError

if TYPE_CHECKING:
    from pocketglm.plan.placement import Placement

MOST_BYTES = 4 << 20
"""Of a file that says a placement: far more than a plan for the largest model takes."""


def placement_of(
    package: Path, place: str | None, gpu_layers: int | None, gpu_memory: int | None
) -> Placement | None:
    """Raises `InputError` for options that do not go together, and for files and texts that are none."""
    if place is not None and gpu_layers is not None:
        raise InputError("--place and --gpu-layers both say where blocks go", hint="leave out one of them")
    if place is not None:
        placement = _read(Path(place)) if _is_path(place) else _parsed(place)
    elif gpu_layers is not None:
        placement = _first_on_gpu(package, gpu_layers)
    elif gpu_memory is not None:
        raise InputError(
            "--gpu-memory limits a placement, and there is none", hint="say --gpu-layers N, or --place"
        )
    else:
        return None
    return placement if gpu_memory is None else replace(placement, gpu_memory=gpu_memory)


def _is_path(text: str) -> bool:
    return text.endswith(".json") or ":" not in text or Path(text).is_file()


def _read(path: Path) -> Placement:
    from pocketglm.plan.placement import HINT, Placement

    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot be read as a placement ({error.strerror})", where=path, hint=f"name a plan, or {HINT}"
        ) from None
    if len(data) > MOST_BYTES:
        raise InputError(f"is larger than any placement ({MOST_BYTES} bytes)", where=path)
    return Placement.from_json(data)


def _parsed(text: str) -> Placement:
    from pocketglm.engine.registry import default_engine
    from pocketglm.plan.placement import Placement

    return Placement.parse(text, cpu_engine=default_engine())


def _first_on_gpu(package: Path, gpu_layers: int) -> Placement:
    from pocketglm.engine.registry import default_engine
    from pocketglm.package.reader import Package
    from pocketglm.plan.placement import Placement

    with Package.open(package) as opened:
        num_blocks = opened.spec.num_blocks
    return Placement.first_on_gpu(num_blocks, gpu_layers, cpu_engine=default_engine())
