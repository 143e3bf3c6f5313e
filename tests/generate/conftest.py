"""Tiny models shared by the tests of this stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generate.tiny_models import CAUSAL, PREFIXED, write_tiny
from pocketglm.generate.model import Model, load


@pytest.fixture(scope="session")
def causal_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("causal") / "package", CAUSAL)


@pytest.fixture(scope="session")
def prefixed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("prefixed") / "package", PREFIXED)


@pytest.fixture(scope="session")
def causal(causal_path: Path) -> Iterator[Model]:
    with load(causal_path, "reference") as model:
        yield model


@pytest.fixture(scope="session")
def prefixed(prefixed_path: Path) -> Iterator[Model]:
    """A ChatGLM-6B-like model: two-dimensional positions and a bidirectional context."""
    with load(prefixed_path, "reference") as model:
        yield model
