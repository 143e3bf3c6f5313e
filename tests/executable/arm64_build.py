"""The executable built for arm64 by Debian's compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from executable.engine_process import ROOT

TOOLS = ("aarch64-linux-gnu-g++", "qemu-aarch64", "cmake", "ninja")
BUILD = ROOT / "build" / "engine-aarch64"


def build_for_arm64() -> Path:
    """Built once, in the build folder: a second call compiles only what changed. Skips where there is no
    compiler or emulator for it."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: g++-aarch64-linux-gnu, qemu-user)")
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
        "CMAKE_BUILD_TYPE": "Release",
        "POCKETGLM_PYTHON": "OFF",
        "POCKETGLM_EXECUTABLE": "ON",
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", *options],
        ["cmake", "--build", str(BUILD)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return BUILD / "pocketglm-engine"
