"""The arm64 kernels, cross-compiled and run under emulation: the scalar kernels' results on every CPU.

A program without Python (native/engine/kernels_compare.cpp) compares them, as emulation has no NumPy.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "native" / "engine"
COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64"
OPTIONS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno"]
TABLES = {
    "neon_i8mm": "armv8.2-a+dotprod+i8mm",
    "neon_dotprod": "armv8.2-a+dotprod",
    "neon": "armv8-a",
}
# Emulated CPU and the tables it must offer: all there is, dot product without i8mm, neither.
CPUS = {
    "max": ["neon_i8mm", "neon_dotprod", "neon"],
    "cortex-a76": ["neon_dotprod", "neon"],
    "cortex-a53": ["neon"],
}


def matrix_sources() -> list[str]:
    listed = re.search(r"set\(MATRIX_SOURCES ([^)]*)\)", (SOURCES / "CMakeLists.txt").read_text())
    assert listed is not None
    return listed[1].split()


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: g++-aarch64-linux-gnu, qemu-user)")
    folder = tmp_path_factory.mktemp("arm64")
    jobs = [
        ([f"-march={march}", f"-DPOCKETGLM_ISA={name}", f'-DKERNELS_NAME="{name}"'], source, name)
        for name, march in TABLES.items()
        for source in matrix_sources()
    ]
    jobs += [(["-DPOCKETGLM_ISA=scalar"], "kernels_scalar.cpp", "scalar")]
    jobs += [([], source, "any") for source in ("dispatch.cpp", "kernels_compare.cpp")]

    def compile_one(job) -> Path:
        flags, source, name = job
        built = folder / f"{name}_{source}.o"
        subprocess.run(
            [COMPILER, *OPTIONS, *flags, "-c", str(SOURCES / source), "-o", str(built)], check=True
        )
        return built

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, jobs))
    built = folder / "compare"
    subprocess.run([COMPILER, "-static", *map(str, objects), "-o", str(built)], check=True)
    return built


@pytest.mark.parametrize("cpu", CPUS)
def test_kernels_agree_with_the_scalar_ones(program, cpu):
    done = subprocess.run(
        [EMULATOR, "-cpu", cpu, str(program), *CPUS[cpu]], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("greatest difference") == len(CPUS[cpu])


def test_dispatch_refuses_what_the_cpu_lacks(program):
    done = subprocess.run([EMULATOR, "-cpu", "cortex-a53", str(program), "neon_dotprod"], capture_output=True)
    assert done.returncode == 1
    assert b"cannot run here" in done.stdout
