"""Every engine passes the contract suite; a new one adds a class of three lines here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine.contract_suite import EngineContract, OpenPackage, open_package, opened_packages
from engine.mnn.graphs import add_graphs, need_mnn
from pocketglm.engine.contract import Engine
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.registry import get_engine
from pocketglm.engine.torch.engine import TorchEngine

__all__ = ["open_package"]


class TestReferenceEngine(EngineContract):
    engine_name = "reference"
    same_weights = 1e-5
    other_engine = 1e-5


class TestNativeEngine(EngineContract):
    engine_name = "native"
    same_weights = 1e-5
    other_engine = 1e-5
    quantized = 5e-2  # activations are int8 there

    @pytest.fixture
    def engine(self) -> Engine:
        return NativeEngine(kv="float32")


class TestNativeEngineHalfCache(EngineContract):
    """As people use it: keys and values in float16."""

    engine_name = "native"
    same_weights = 1e-3  # another order of sums, and a key may round to the next float16
    other_engine = 5e-3
    quantized = 5e-2


class TestNativeEngineInt8Cache(EngineContract):
    engine_name = "native"
    same_weights = 2e-2
    other_engine = 5e-2
    quantized = 5e-2
    saved_half = 2e-2

    @pytest.fixture
    def engine(self) -> Engine:
        return NativeEngine(kv="int8")


class TestTorchEngine(EngineContract):
    engine_name = "torch"
    same_weights = 1e-5
    other_engine = 1e-5

    @pytest.fixture
    def engine(self) -> Engine:
        return TorchEngine(kv="float32", kernels=False)


class TestTorchEngineHalfCache(EngineContract):
    """As people use it: keys and values in float16."""

    engine_name = "torch"
    same_weights = 1e-3
    other_engine = 5e-3

    @pytest.fixture
    def engine(self) -> Engine:
        return TorchEngine(kernels=False)


class TestTorchEngineInt8Cache(EngineContract):
    engine_name = "torch"
    same_weights = 2e-2
    other_engine = 5e-2
    saved_half = 2e-2

    @pytest.fixture
    def engine(self) -> Engine:
        return TorchEngine(kv="int8", kernels=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter is too slow for the whole suite")
class TestTorchKernels(EngineContract):
    engine_name = "torch"
    same_weights = 5e-3  # one row is multiplied in float32, many in float16
    other_engine = 5e-3


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
