"""The compiled host, and programs over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from android.apk import ENGINE, build_apk, command, extract
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


@pytest.fixture(scope="session")
def apk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_apk(tmp_path_factory.mktemp("apk") / "pocketglm.apk")


@pytest.fixture(scope="session")
def phone_engine(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's program out of the signed APK. Skips where nothing runs it."""
    command("qemu-aarch64")
    return extract(apk, ENGINE, tmp_path_factory.mktemp("engine"))
