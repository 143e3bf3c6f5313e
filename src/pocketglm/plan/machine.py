"""What a machine has for a model: memory, processors and GPUs.

Enters: the system's own figures, or what a user assumes of another machine. Leaves: a `Machine`. Nothing
here touches a GPU: whoever can ask one passes its figures in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """`backend` is the name the torch engine knows it by; `free` is in bytes, `process` what using it adds
    to the memory of the process itself, `read_bytes_per_s` its memory's rate, where known."""

    name: str
    backend: str
    free: int
    process: int = 0
    read_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Machine:
    """`free_memory` is what a process may take of the RAM now, in bytes, without pushing others out."""

    free_memory: int
    cpus: int
    gpus: tuple[Gpu, ...] = ()
    assumed: tuple[str, ...] = ()
    """What of it a user assumed, in words; empty for the machine that this is."""


def this_machine(gpus: Iterable[Gpu] = ()) -> Machine:
    """The machine as it is now."""
    return Machine(free_memory(), available_cpus(), tuple(gpus))


def available_cpus() -> int:
    """Processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def free_memory(root: Path = Path("/")) -> int:
    """RAM that can be had without swapping: what the system says, or less where a cgroup allows less."""
    return min([_system_free(root), *_cgroup_free(root)])


def _system_free(root: Path) -> int:
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    import psutil

    return int(psutil.virtual_memory().available)


def _cgroup_free(root: Path) -> Iterator[int]:
    """What each cgroup around this process leaves; the page cache that it is charged for can go."""
    for group, limit_file, used_file in _cgroups(root):
        try:
            limit = int((group / limit_file).read_text())
            used = int((group / used_file).read_text())
            cached = _cached(group / "memory.stat")
        except (OSError, ValueError):  # no such file, or `max`: no limit
            continue
        yield max(0, limit - max(0, used - cached))


def _cgroups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(directory, file of the limit, file of what is used) of the process's cgroups and their parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, files = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        place = top / path.lstrip("/")
        # In a container the path is the host's, and the top directory is the container's own group
        for group in (place, *place.parents) if place.exists() else (top,):
            yield group, *files
            if group == top:
                break


def _cached(stat: Path) -> int:
    """Page cache that is given up first, of a cgroup and those below it."""
    fields = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
