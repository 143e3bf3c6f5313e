"""The engines there are. Enters: a name. Leaves: an engine; only the chosen one is imported."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from pocketglm.engine.contract import Engine
from pocketglm.errors import InputError

ENGINES = {
    "reference": "pocketglm.engine.reference.engine:ReferenceEngine",
    "native": "pocketglm.engine.native.engine:NativeEngine",
    "torch": "pocketglm.engine.torch.engine:TorchEngine",
    "mnn": "pocketglm.engine.mnn.engine:MnnEngine",
}
"""Name -> where the engine's class stands."""

GPU_ENGINES = ("torch", "mnn")
"""Engines that can compute on a GPU."""


def engine_names() -> tuple[str, ...]:
    """Names that `get_engine` takes."""
    return tuple(ENGINES)


def default_engine() -> str:
    """Name of the engine to use where the user named none: the native one where it was built."""
    return "native" if find_spec("pocketglm.engine.native._engine") else "reference"


def get_engine(name: str) -> Engine:
    """The engine called `name`. Raises `InputError` where there is none."""
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}", hint=f"choose one of: {', '.join(ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    return cast(Engine, getattr(import_module(module), attribute)())
