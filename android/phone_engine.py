"""The engine for phones: the sources and options of `make engine`, compiled by Zig for arm64 with musl."""

from __future__ import annotations

from pathlib import Path

import tools
from failure import run

ROOT = Path(__file__).parents[1]


def build_engine(work: Path) -> Path:
    """A static program in `work`. A second build compiles only what changed."""
    settings = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "android" / "zig.cmake",
        "ZIG": tools.zig(),
        "CMAKE_BUILD_TYPE": "Release",
        "POCKETGLM_PYTHON": "OFF",
        "POCKETGLM_EXECUTABLE": "ON",
    }
    cmake, ninja = tools.command("cmake"), tools.command("ninja")
    options = [f"-D{name}={value}" for name, value in settings.items()]
    environment = tools.zig_environment()
    configure = [cmake, "-S", str(ROOT), "-B", str(work), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    run([*configure, *options], "CMake could not prepare the engine", **environment)
    run([cmake, "--build", work], "The engine was not built", **environment)
    return work / "pocketglm-engine"
