"""What is free: the system's word, and less where a cgroup allows less."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketglm.plan.machine import available_cpus, free_memory, this_machine

MIB = 1 << 20


def system(root: Path, cgroup: str, available: int = 8000) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {available * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def group(place: Path, **files: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / f"memory.{name}").write_text(text)


def test_without_a_cgroup_it_is_what_the_system_says(tmp_path: Path) -> None:
    assert free_memory(system(tmp_path, "0::/\n")) == 8000 * MIB
    (tmp_path / "proc/self/cgroup").unlink()
    assert free_memory(tmp_path) == 8000 * MIB


@pytest.mark.parametrize("inner", ["max", str(4000 * MIB)])
def test_the_narrowest_of_nested_groups_counts_and_its_cache_can_go(tmp_path: Path, inner: str) -> None:
    root = system(tmp_path, "0::/outer/inner\n")
    used, stat = str(1500 * MIB), f"anon 7\ninactive_file {500 * MIB}\n"
    group(root / "sys/fs/cgroup/outer/inner", max=inner, current=used, stat=stat)
    group(root / "sys/fs/cgroup/outer", max=str(3000 * MIB), current=used, stat=stat)
    assert free_memory(root) == 2000 * MIB


def test_version_1_and_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    root = system(tmp_path, "7:blkio:/x\n4:cpuset,memory:/docker/abc\n0::/\n")
    top = root / "sys/fs/cgroup/memory"
    group(top, limit_in_bytes=str(1000 * MIB), usage_in_bytes=str(300 * MIB), stat="total_inactive_file 0\n")
    assert free_memory(root) == 700 * MIB


def test_this_machine_has_memory_and_processors() -> None:
    machine = this_machine()
    assert machine.free_memory > 0
    assert machine.cpus == available_cpus() >= 1
    assert machine.gpus == ()
