"""Fixtures shared by all tests: where golden and third-party data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Golden fixtures, committed with the project."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Third-party files that the project does not carry; tests that need them skip without."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("POCKETGLM_SHARED", default))
    if not path.is_dir():
        pytest.skip(f"third-party test data not found at {path}; set POCKETGLM_SHARED to its folder")
    return path
