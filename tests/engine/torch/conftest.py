"""Packages shared by the tests of this engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.contract_suite import OpenPackage, opened_packages


@pytest.fixture(scope="session")
def open_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPackage]:
    """Opens the package of a spec in a format; each is written once."""
    yield from opened_packages(tmp_path_factory)
