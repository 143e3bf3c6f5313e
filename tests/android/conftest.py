"""The compiled host, and programs over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from android.java_process import DesktopHost, Probe, compile_java


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_java(tmp_path_factory.mktemp("java") / "classes")


@pytest.fixture(scope="module")
def probe(classes: Path) -> Iterator[Probe]:
    with Probe(classes) as program:
        yield program


@pytest.fixture
def host(classes: Path, tmp_path: Path) -> Iterator[DesktopHost]:
    """Without an engine."""
    with DesktopHost(classes, tmp_path / "files") as program:
        yield program
