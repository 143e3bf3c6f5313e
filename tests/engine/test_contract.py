"""Every engine passes the contract suite; a new one adds a class of three lines here."""

from __future__ import annotations

from engine.contract_suite import EngineContract, open_package

__all__ = ["open_package"]


class TestReferenceEngine(EngineContract):
    engine_name = "reference"
    same_weights = 1e-5
    other_engine = 1e-5
