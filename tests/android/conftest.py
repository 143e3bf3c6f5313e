"""The compiled host, and programs over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from android.apk import ENGINE, build_apk, command, extract
from android.java_process import DesktopHost, Probe, compile_java
from executable.engine_process import BUILT, engine_command


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_java(tmp_path_factory.mktemp("java") / "classes")


@pytest.fixture(scope="module")
def probe(classes: Path) -> Iterator[Probe]:
    with Probe(classes) as program:
        yield program


def named_engine() -> list[str]:
    """The engine's command; one that cannot be started where none is built, for tests that need none."""
    return engine_command() if BUILT.is_file() or "POCKETGLM_ENGINE" in os.environ else [str(BUILT)]


@pytest.fixture
def engine() -> list[str]:
    """For tests that need one; they are skipped where there is none."""
    return engine_command()


@pytest.fixture(scope="session")
def desktop(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DesktopHost]:
    with DesktopHost(classes, tmp_path_factory.mktemp("host") / "files", named_engine()) as program:
        yield program


@pytest.fixture(scope="session")
def apk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_apk(tmp_path_factory.mktemp("apk") / "pocketglm.apk")


@pytest.fixture(scope="session")
def phone_engine(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's program out of the signed APK. Skips where nothing runs it."""
    command("qemu-aarch64")
    return extract(apk, ENGINE, tmp_path_factory.mktemp("engine"))


@pytest.fixture
def host(desktop: DesktopHost, tmp_path: Path) -> DesktopHost:
    """The app, just started over an empty folder."""
    desktop.restart(tmp_path / "files")
    return desktop
