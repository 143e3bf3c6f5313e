"""A placement where nobody asked for one: only for a model that the free memory cannot hold.

Enters: what the user said. Leaves: a placement, or None where the model fits, or where the user has said
how it is to run. Without it such a model would run from the page cache, and push everything out of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pocketglm.cli import console
from pocketglm.cli.placing import placement_of
from pocketglm.cli.sizes import format_size
from pocketglm.errors import ResourceError

if TYPE_CHECKING:
    from pocketglm.plan.kv_cache import KVType
    from pocketglm.plan.placement import Placement

BESIDE_WEIGHTS = 256 << 20
"""What a process takes for itself, activations and a short context, roughly: with more than that to spare
nothing is measured or planned."""


def chosen_placement(
    package: Path,
    engine: str | None,
    place: str | None,
    gpu_layers: int | None,
    gpu_memory: int | None,
    *,
    memory: int | None,
    context: int | None,
    kv: KVType | None,
    backend: object,
    threads: int | None,
) -> Placement | None:
    """What the user said, as `placement_of`; where nothing is said that decides it, by the free memory."""
    placement = placement_of(
        package,
        place,
        gpu_layers,
        gpu_memory,
        memory=memory,
        context=context,
        kv=kv,
        backend=backend,
        threads=threads,
    )
    if placement is None and memory is None and backend is None:
        return placement_for_free_memory(package, engine, threads, kv, context)
    return placement


def placement_for_free_memory(
    package: Path, engine: str | None, threads: int | None, kv: KVType | None, context: int | None
) -> Placement | None:
    """Blocks that have no room are read from disk at every step, and a line on standard error says so."""
    from pocketglm.cli.measure import plan_package
    from pocketglm.engine.registry import default_engine
    from pocketglm.package.reader import Package
    from pocketglm.plan.machine import free_memory
    from pocketglm.plan.planner import Limits

    if (engine or default_engine()) != "native":
        return None
    with Package.open(package) as opened:
        size = sum(opened.manifest.files[name].size for name in opened.manifest.weights)
        free = free_memory()
        if size + BESIDE_WEIGHTS < free:
            return None
        try:
            plan = plan_package(opened, Limits(gpu_layers=0, context=context, kv=kv), threads=threads)
        except ResourceError:  # it is tried all the same: the system may find room
            return None
    if plan.whole_in_memory:
        return None
    read, blocks = plan.placement.count("disk"), len(plan.placement.blocks)
    console.note(
        f"the weights are {format_size(size)}, {format_size(free)} of memory are free: {read} of {blocks} "
        f"blocks are read from disk at every step, with a context of {plan.context} tokens (pocketglm plan)"
    )
    return plan.placement
