"""Which engine holds which part of a model, and the loading of those parts.

Enters: one engine, or a placement. Leaves: the stages in the order of their blocks, and the head. Where
a GPU's memory is too small for what was placed there, some blocks less are placed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from pocketglm.engine.contract import (
    HEAD,
    Capabilities,
    Engine,
    EngineOptions,
    Head,
    KVType,
    Stage,
)
from pocketglm.engine.registry import get_engine
from pocketglm.errors import DeviceMemoryError, EngineError, InputError
from pocketglm.package.reader import Package
from pocketglm.plan.placement import Placement

Backend = str | Mapping[int | str, str] | None
Warn = Callable[[str], None]

MOVED_SHARE = 8
"""Where a GPU is too small, one in this many of its blocks is moved off it at a time."""


@dataclass(frozen=True)
class Part:
    """Blocks that become one stage, or (None) the head, and how they are loaded.

    `streamed` are blocks to be read from disk at every pass; None leaves it to the engine.
    """

    blocks: range | None
    engine: Engine
    on_gpu: bool = False
    backend: Backend = None
    streamed: frozenset[int] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self.engine.capabilities()


@dataclass(frozen=True)
class Assembly:
    """The parts of a model: those of blocks in order, then the head.

    With `chosen_streams`, the placement says which blocks are read from disk; else the engine chooses
    them by the memory allowed.
    """

    parts: tuple[Part, ...]
    placement: Placement | None = None
    chosen_streams: bool = True

    @classmethod
    def of_engine(cls, engine: Engine, num_blocks: int, backend: Backend = None) -> Assembly:
        """Everything on one engine."""
        blocks = Part(range(num_blocks), engine, backend=backend)
        return cls((blocks, replace(blocks, blocks=None)))

    @classmethod
    def of_placement(cls, placement: Placement, chosen_streams: bool = True) -> Assembly:
        """Raises `InputError` and `EngineError` where an engine cannot do its part."""
        names = {run.engine for run in placement.runs()}
        names.add(placement.gpu_engine if placement.head == "gpu" else placement.cpu_engine)
        engines = {name: get_engine(name) for name in names}
        parts = [
            Part(
                run.blocks,
                engines[run.engine],
                run.place == "gpu",
                run.backend,
                run.streamed if chosen_streams and engines[run.engine].capabilities().streams else None,
            )
            for run in placement.runs()
        ]
        if placement.head == "gpu":
            parts.append(Part(None, engines[placement.gpu_engine], True, placement.gpu_backend))
        else:
            parts.append(Part(None, engines[placement.cpu_engine], False, placement.cpu_backend))
        if placement.count("disk") and not get_engine(placement.cpu_engine).capabilities().streams:
            raise InputError(
                f"the engine {placement.cpu_engine} reads no blocks from disk, the placement has "
                f"{placement.count('disk')} there",
                hint="use the engine native for what is not on the GPU",
            )
        return cls(tuple(parts), placement, chosen_streams)

    @property
    def engine_name(self) -> str:
        """The engine's name; of a mix, all of them: `torch+native`."""
        return "+".join(dict.fromkeys(part.engine.name for part in self.parts))

    @property
    def capabilities(self) -> Capabilities:
        """What all parts can do."""
        return weakest([part.capabilities for part in self.parts])

    @property
    def holds_memory(self) -> bool:
        """Whether some part keeps the process within its limit."""
        return any(part.capabilities.holds_memory for part in self.parts)

    def check_kv(self, kv: KVType | None) -> None:
        """Raises `EngineError` where a part has no choice of KV caches, or not this one."""
        for part in self.parts:
            check_kv(part.engine, kv)

    def lighter(self) -> Assembly:
        """With fewer blocks on the GPU. Raises `InputError` where none is there."""
        if self.placement is None:
            raise InputError("the model is not divided between a GPU and other memory")
        count = max(1, self.placement.count("gpu") // MOVED_SHARE)
        return Assembly.of_placement(self.placement.with_fewer_on_gpu(count), self.chosen_streams)


def weakest(capabilities: Iterable[Capabilities]) -> Capabilities:
    """What every one of several engines can do."""
    found = list(capabilities)
    weakest = found[0]
    for other in found[1:]:
        weakest = Capabilities(
            weakest.weight_bits & other.weight_bits,
            tuple(dict.fromkeys((*weakest.devices, *other.devices))),
            batched=weakest.batched and other.batched,
            kv_types=tuple(kv for kv in weakest.kv_types if kv in other.kv_types),
            exact_rows=min(weakest.exact_rows, other.exact_rows),
            holds_memory=weakest.holds_memory and other.holds_memory,
            streams=weakest.streams and other.streams,
        )
    return weakest


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


@dataclass(frozen=True)
class Loaded:
    """A model's parts, ready to compute, as they were placed in the end."""

    assembly: Assembly
    stages: tuple[Stage, ...]
    head: Head
    options: EngineOptions

    def release(self) -> None:
        for part in (*self.stages, self.head):
            part.release()


def load_assembly(
    package: Package, assembly: Assembly, plan: Callable[[], EngineOptions], warn: Warn
) -> Loaded:
    """Load every part.

    `plan` gives the options for all parts, with what the process holds by then. Parts of engines that do
    not keep to a limit on memory come first: what they take is measured, and the others make do with
    the rest. `warn` gets a sentence where blocks had to leave the GPU. Raises `EngineError`.
    """
    while True:
        try:
            return _load_once(package, assembly, plan)
        except DeviceMemoryError as error:
            if assembly.placement is None or not assembly.placement.uses_gpu:
                raise
            before, assembly = assembly.placement.text, assembly.lighter()
            assert assembly.placement is not None
            warn(f"{error}; instead of {before} the run goes on with {assembly.placement.text}")


def _load_once(package: Package, assembly: Assembly, plan: Callable[[], EngineOptions]) -> Loaded:
    loaded: dict[int, Stage | Head] = {}
    try:
        options = plan()
        order = sorted(enumerate(assembly.parts), key=lambda item: item[1].capabilities.holds_memory)
        for index, part in order:
            if part.capabilities.holds_memory and not _holder_is_loaded(assembly, loaded):
                options = plan()
            chosen = _part_options(package, assembly, part, options)
            if part.blocks is None:
                loaded[index] = part.engine.load_head(package, chosen)
            else:
                loaded[index] = part.engine.load_blocks(package, part.blocks, chosen)
    except BaseException:
        for held in loaded.values():
            held.release()
        raise
    *stages, head = (loaded[index] for index in range(len(assembly.parts)))
    return Loaded(assembly, tuple(stages), head, options)  # type: ignore[arg-type]
