"""The app as it is given away: built once, and taken apart for the tests.

Enters: the sources, by android/build.py. Leaves: paths of the APK and of what is in it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "build" / "phone-page"
ENGINE = "lib/arm64-v8a/libpocketglm_engine.so"
NAMED = "POCKETGLM_APK"
MISSING_TOOL = 3
BUILD_TIMEOUT = 1500
"""Seconds. Zig compiles the C++ library first, for minutes, where it has not yet."""


def build_tool(name: str) -> ModuleType:
    """A module of the folder `android`, whose scripts are not a package."""
    folder = str(ROOT / "android")
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(name, ROOT / "android" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def build_apk(output: Path) -> Path:
    """The APK, or the one that POCKETGLM_APK names. Skips where a tool of the build is missing."""
    if named := os.environ.get(NAMED):
        return Path(named)
    if not (PAGE / "index.html").is_file():
        pytest.skip("the app's page is not built; `make phone-page` builds it")
    script = ROOT / "android" / "build.py"
    done = subprocess.run(
        [sys.executable, str(script), str(PAGE), str(output)], capture_output=True, text=True
    )
    if done.returncode == MISSING_TOOL:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def extract(apk: Path, name: str, folder: Path) -> Path:
    """One file of the APK, as a program where it is one."""
    with zipfile.ZipFile(apk) as archive:
        path = Path(archive.extract(name, folder))
    path.chmod(0o755)
    return path


def command(name: str) -> str:
    """The path of a program; skips where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
