"""Run a program under a hard memory limit of the kernel: a cgroup of its own, below this process's.

Enters: a command and bytes. Leaves: its output, and the most memory it was charged for, page cache
included. `available()` says whether this machine lets us: it takes the right to make a cgroup here.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIMIT_FILES = {1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes"), 2: ("memory.max", "memory.peak")}
SWAP_FILES = {1: "memory.memsw.limit_in_bytes", 2: "memory.swap.max"}


@dataclass(frozen=True)
class Finished:
    """`peak` is in bytes; a process that the limit killed has the exit code -9."""

    code: int
    stdout: str
    stderr: str
    peak: int


def run_limited(command: Sequence[str], limit: int) -> Finished:
    """Run to the end. Raises `OSError` where no cgroup can be made."""
    with (
        _cgroup(limit) as (version, group),
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as errors,
    ):
        # The shell joins the group before it becomes the program, so that all of it is charged there
        line = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
        code = subprocess.run(line, stdout=out, stderr=errors, check=False).returncode
        peak = int((group / LIMIT_FILES[version][1]).read_text())
        for file in (out, errors):
            file.seek(0)
        return Finished(code, out.read(), errors.read(), peak)


def available() -> bool:
    """Whether `run_limited` works here."""
    try:
        with _cgroup(1 << 30):
            return True
    except OSError:
        return False


@contextmanager
def _cgroup(limit: int) -> Iterator[tuple[int, Path]]:
    version, parent = _own_cgroup()
    group = parent / f"pocketglm-{os.getpid()}"
    group.mkdir()
    try:
        (group / LIMIT_FILES[version][0]).write_text(str(limit))
        swap = group / SWAP_FILES[version]
        if swap.exists():
            swap.write_text(str(limit if version == 1 else 0))
        yield version, group
    finally:
        group.rmdir()


def _own_cgroup() -> tuple[int, Path]:
    """Version of cgroups that limits memory here, and the directory of this process's own one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        raise OSError("this system has no cgroups") from None
    places = {tuple(line.split(":", 2)[1].split(",")): line.split(":", 2)[2] for line in lines}
    for _, where, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            path = next((path for names, path in places.items() if "memory" in names), None)
            if path is not None:
                return 1, Path(where + path)
        if kind == "cgroup2" and ("",) in places:
            directory = Path(where + places[("",)])
            controllers = directory / "cgroup.subtree_control"
            if controllers.exists() and "memory" in controllers.read_text().split():
                return 2, directory
    raise OSError("no cgroup here limits memory")
