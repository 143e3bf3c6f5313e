"""Fixtures shared by all tests: where golden and third-party data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"

if not Path("/dev/nvidia0").exists():
    # Triton's kernels then run in its interpreter, which it asks for once, when it is imported first
    os.environ["TRITON_INTERPRET"] = "1"


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


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF; `make test` fetches it, without it the tests that need it skip."""
    default = Path(__file__).parents[1] / ".venv" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path = Path(os.environ.get("POCKETGLM_SMOLLM2", default))
    if not path.is_file():
        pytest.skip(f"SmolLM2 not found at {path}; `make smollm2` fetches it, or set POCKETGLM_SMOLLM2")
    return path
