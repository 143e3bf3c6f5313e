"""Every engine passes the contract suite; a new one adds a class of three lines here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.contract_suite import EngineContract, OpenPackage, open_package, opened_packages
from engine.mnn.graphs import add_graphs, need_mnn
from pocketglm.engine.contract import Engine
from pocketglm.engine.registry import get_engine

__all__ = ["open_package"]


class TestReferenceEngine(EngineContract):
    engine_name = "reference"
    same_weights = 1e-5
    other_engine = 1e-5


@pytest.fixture(scope="module")
def packages_with_graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPackage]:
    yield from opened_packages(tmp_path_factory, add_graphs)


class TestMnnEngine(EngineContract):
    engine_name = "mnn"
    same_weights = 1e-5
    other_engine = 1e-5
    quantized = 4e-2  # MNN makes activations int8

    @pytest.fixture
    def engine(self) -> Engine:
        need_mnn()
        return get_engine(self.engine_name)

    @pytest.fixture
    def open_package(self, packages_with_graphs: OpenPackage) -> OpenPackage:
        return packages_with_graphs
