"""How a model is loaded, checked before anything is opened.

Enters: what a program or the command line asks for. Leaves: frozen settings, or an error that names the
setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pocketglm.engine.contract import Engine, KVType
from pocketglm.engine.registry import GPU_ENGINES, default_engine
from pocketglm.errors import EngineError, InputError
from pocketglm.generate.stream import check_lookup
from pocketglm.plan.placement import Placement

Backend = str | Mapping[int | str, str] | None


@dataclass(frozen=True)
class LoadSettings:
    """See `model.load`. With a `placement`, it alone says the engines and their backends."""

    threads: int | None = None
    memory: int | None = None
    backend: Backend = None
    kv: KVType | None = None
    context: int | None = None
    lookup: int | None = None
    placement: Placement | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "memory", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected 1 or more")
        if self.lookup is not None:
            check_lookup(self.lookup)

    @classmethod
    def of(cls, placement: Placement, threads: int | None, lookup: int | None) -> LoadSettings:
        """Those that a placement says."""
        return cls(
            threads, placement.memory, None, placement.kv, placement.context, lookup, placement=placement
        )


def placed(
    placement: Placement | str,
    *,
    engine: str | None = None,
    backend: Backend = None,
    kv: KVType | None = None,
    context: int | None = None,
    memory: int | None = None,
) -> Placement:
    """A placement with what else was asked for, which counts more than what it says itself.

    `engine` is for the blocks in RAM and on disk, and for those on the GPU too if it can use one;
    `backend` is for those on the GPU.
    """
    if backend is not None and not isinstance(backend, str):
        raise InputError(
            "backends by block do not go with a placement", hint="name the one backend of the GPU's blocks"
        )
    if isinstance(placement, str):
        placement = Placement.parse(placement, cpu_engine=default_engine())
    changes: dict[str, Any] = {"gpu_backend": backend, "kv": kv, "context": context, "memory": memory}
    if engine is not None:
        changes |= {"cpu_engine": engine, "gpu_engine": engine if engine in GPU_ENGINES else None}
    return replace(placement, **{name: value for name, value in changes.items() if value is not None})


def check_backend(engine: Engine, backend: Backend) -> None:
    """Raises `EngineError` where the engine does not have a backend that is asked for."""
    named = () if backend is None else (backend,) if isinstance(backend, str) else backend.values()
    there = engine.capabilities().devices
    for name in named:
        if name.split(":")[0] not in there:
            raise EngineError(
                f"engine {engine.name} has no backend {name!r} here", hint=f"it has {', '.join(there)}"
            )


def check_kv(engine: Engine, kv: str | None) -> None:
    """Raises `EngineError` where the engine has no choice of KV caches, or not this one."""
    there = engine.capabilities().kv_types
    if kv is None or kv in there:
        return
    if not there:
        raise EngineError(
            f"engine {engine.name} has no choice of KV caches", hint="leave out kv (--kv), or use native"
        )
    raise EngineError(f"engine {engine.name} has no KV cache of {kv!r}", hint=f"it has {', '.join(there)}")
