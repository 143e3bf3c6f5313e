"""Where the blocks of a model go, as commands are told it.

Enters: `--place`, `--gpu-layers`, `--gpu-memory` and other limits. Leaves: a placement, or None where
nothing was said.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketglm.cli import console
from pocketglm.errors import InputError

if TYPE_CHECKING:
    from pocketglm.plan.kv_cache import KVType
    from pocketglm.plan.placement import Placement
    from pocketglm.plan.planner import Limits

MOST_BYTES = 4 << 20
"""Of a file that says a placement: far more than a plan for the largest model takes."""


def placement_of(
    package: Path,
    place: str | None,
    gpu_layers: int | None,
    gpu_memory: int | None,
    *,
    memory: int | None = None,
    context: int | None = None,
    kv: KVType | None = None,
    backend: object = None,
    threads: int | None = None,
) -> Placement | None:
    """Raises `InputError` for options that do not go together, and for files and texts that are none.

    What `place` does not say is planned where it depends on memory: as many blocks as `gpu_memory` has room
    for, or which blocks are read from disk under a limit on `memory`.
    """
    if place is not None and gpu_layers is not None:
        raise InputError("--place and --gpu-layers both say where blocks go", hint="leave out one of them")
    if place is not None:
        placement = _read(Path(place)) if _is_path(place) else _parsed(place)
    elif gpu_layers is None and gpu_memory is None:
        return None
    elif gpu_layers is None or (memory is not None and backend != "cpu"):
        from pocketglm.plan.planner import Limits

        return _planned(package, Limits(memory, gpu_memory, gpu_layers, context, kv), threads)
    else:
        placement = _first_on_gpu(package, gpu_layers)
    return placement if gpu_memory is None else replace(placement, gpu_memory=gpu_memory)


def _planned(package: Path, limits: Limits, threads: int | None) -> Placement:
    from pocketglm.cli.measure import plan_package
    from pocketglm.package.reader import Package

    with Package.open(package) as opened:
        made = plan_package(opened, limits, threads=threads).placement
    console.note(f"placement: {made.text}")
    return made


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
