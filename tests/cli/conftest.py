"""Tiny packages and a way to run the command, in this process or in its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from generate.tiny_models import write_tiny

Command = Callable[..., Result]
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache or depends on the user's terminal."""
    monkeypatch.setenv("POCKETGLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers without end: no token ends its answers but the full context of 1200."""
    return write_tiny(tmp_path_factory.mktemp("cli") / "package", generation={"do_sample": False})


@pytest.fixture
def command() -> Command:
    """Run the command in this process: `command("run", path, input="text")`."""
    from pocketglm.cli.main import app

    def invoke(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], input=input, prog_name="pocketglm")

    return invoke


@pytest.fixture
def program() -> Program:
    """Run the command as users do."""

    def execute(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pocketglm", *map(str, arguments)]
        return subprocess.run(
            line, capture_output=True, text=True, encoding="utf-8", env=dict(os.environ), **options
        )  # type: ignore[call-overload, no-any-return]

    return execute
