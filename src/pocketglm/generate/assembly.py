"""A model's parts, loaded into the engines that a placement names.

Enters: a package, and the parts or a placement. Leaves: stages in the order of their blocks, the head,
and what they can do together. Parts on a GPU are loaded first: what they take of the process's memory is
measured then, and the others share the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from pocketglm.engine.contract import Engine, EngineOptions, Head, KVType, Stage
from pocketglm.engine.registry import get_engine
from pocketglm.errors import DeviceMemoryError, EngineError
from pocketglm.generate.load_settings import Backend, LoadSettings, check_backend, check_kv
from pocketglm.generate.memory_budget import MemoryBudget, context_limit, plan_budget
from pocketglm.package.reader import Package
from pocketglm.plan.placement import Placement, Run

logger = logging.getLogger(__name__)

STEPS_OFF_GPU = 8
"""Of the blocks on a GPU that is too small, one in this many moves off it at a time, at least one."""


@dataclass(frozen=True)
class Part:
    """What one engine loads: consecutive blocks, or the head (`blocks` None).

    `streamed` are the blocks to be read from disk (None: as the engine likes).
    """

    engine: Engine
    blocks: range | None
    backend: Backend
    on_gpu: bool = False
    streamed: frozenset[int] | None = None

    @property
    def count(self) -> int:
        return 0 if self.blocks is None else len(self.blocks)


@dataclass(frozen=True)
class Assembly:
    """Loaded parts: `stages` are those of the parts with blocks, in their order. `context` is the most
    tokens of a session, `kv` what its caches hold, at most."""

    parts: Sequence[Part]
    placement: Placement | None
    stages: list[Stage]
    head: Head
    kv: KVType
    context: int

    @property
    def engines(self) -> tuple[str, ...]:
        """Names, each once."""
        return tuple(dict.fromkeys(part.engine.name for part in self.parts))

    @property
    def exact_rows(self) -> int:
        """What all engines together keep of `Capabilities.exact_rows`."""
        return exact_rows(self.parts)

    def places(self) -> list[tuple[str, str]]:
        """Engine and place of every block: `gpu`, or what the stage says, or `cpu`."""
        found = []
        for part, stage in zip(self.parts, self.stages, strict=False):  # the last part is the head
            tell = getattr(stage, "place_of", None)
            for index in stage.blocks:
                where = "gpu" if part.on_gpu else str(tell(index)) if tell else "cpu"
                found.append((part.engine.name, where))
        return found

    def release(self) -> None:
        for stage in self.stages:
            stage.release()
        self.head.release()


def exact_rows(parts: Sequence[Part]) -> int:
    """The least of the engines'."""
    return min(part.engine.capabilities().exact_rows for part in parts)


def assemble(package: Package, engine: Engine, settings: LoadSettings) -> Assembly:
    """Load all blocks and the head into `engine`, or where the settings' placement says.

    Blocks that do not fit on the GPU move off it, with a warning in the log. Raises `EngineError` for what
    an engine cannot do or for too little memory; nothing stays loaded then.
    """
    if settings.placement is None:
        whole = range(package.spec.num_blocks)
        parts = [Part(engine, blocks, settings.backend) for blocks in (whole, None)]
        return _Loader(package, parts, settings, settings.kv).load()
    return place(package, settings.placement, settings)


def place(
    package: Package,
    placement: Placement,
    settings: LoadSettings,
    moved: tuple[Placement, DeviceMemoryError] | None = None,
) -> Assembly:
    """As `assemble`, for a placement. `moved` is where blocks were before, and why they could not stay."""
    placement.check_fits(package.spec.num_blocks)
    before, problem = moved or (placement, None)
    while True:
        loader = _Loader(package, placed_parts(placement), settings, placement.kv, placement)
        try:
            made = loader.load()
        except _TooLittleOnGpuError as error:
            problem = problem or error.cause
            placement = fewer_on_gpu(placement, error.cause)
            continue
        if problem is not None:
            logger.warning("%s; moved off the GPU: %s", problem.message, _difference(before, placement))
        return made


def fewer_on_gpu(placement: Placement, error: DeviceMemoryError) -> Placement:
    """A few blocks less on the GPU. Raises `error` where nothing is left there."""
    if not placement.uses_gpu:
        raise error
    step = max(1, placement.count("gpu") // STEPS_OFF_GPU)
    less = placement.with_fewer_on_gpu(step)
    if placement.memory is not None and get_engine(placement.cpu_engine).capabilities().streams:
        less = _read_from_disk(placement, less)
    return less


def placed_parts(placement: Placement) -> list[Part]:
    """Stages in the order of their blocks, then the head. Raises `EngineError` for what an engine lacks."""
    if placement.head == "gpu":
        head = Part(get_engine(placement.gpu_engine), None, placement.gpu_backend, True)
    else:
        head = Part(get_engine(placement.cpu_engine), None, placement.cpu_backend)
    parts = [*map(_stage_part, placement.runs()), head]
    return [replace(part, backend=_backend(part)) for part in parts]


def _stage_part(run: Run) -> Part:
    engine = get_engine(run.engine)
    if engine.capabilities().streams:
        return Part(engine, run.blocks, run.backend, run.place == "gpu", run.streamed)
    if run.streamed:
        raise EngineError(
            f"engine {engine.name} cannot read blocks from disk at every pass",
            hint="place them in ram, or use the native engine",
        )
    return Part(engine, run.blocks, run.backend, run.place == "gpu")


def _backend(part: Part) -> Backend:
    """The named backend; beside the GPU the CPU; else the GPU that the engine finds."""
    if part.backend is not None or not part.on_gpu:
        return part.backend or "cpu"
    find = getattr(part.engine, "find_gpu", None)
    found: str | None = find() if find else None
    if found is None:
        raise EngineError(
            f"engine {part.engine.name} finds no GPU here",
            hint="place the blocks in ram or on disk, or name a backend "
            "(cpu shows how the placement works where there is no GPU)",
        )
    return found


def _read_from_disk(before: Placement, after: Placement) -> Placement:
    """Under a memory limit, what came off the GPU has no room that was planned for it in RAM."""
    blocks = (
        "disk" if old == "gpu" and new == "ram" else new
        for old, new in zip(before.blocks, after.blocks, strict=True)
    )
    return replace(after, blocks=tuple(blocks))


def _difference(before: Placement, after: Placement) -> str:
    """`blocks 6-9 to ram, the head to ram`."""
    pairs = zip(before.blocks, after.blocks, strict=True)
    places = ["" if old == new else new for old, new in pairs]
    moved = []
    for place_now, numbered in groupby(enumerate(places), key=lambda item: item[1]):
        members = [index for index, _ in numbered]
        first, last = members[0], members[-1]
        if place_now:
            moved.append(
                (f"block {first}" if first == last else f"blocks {first}-{last}") + f" to {place_now}"
            )
    if before.head != after.head:
        moved.append(f"the head to {after.head}")
    return ", ".join(moved)


class _TooLittleOnGpuError(Exception):
    def __init__(self, cause: DeviceMemoryError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Loader:
    """One attempt to load parts."""

    def __init__(
        self,
        package: Package,
        parts: Sequence[Part],
        settings: LoadSettings,
        kv: KVType | None,
        placement: Placement | None = None,
    ) -> None:
        for part in parts:
            check_backend(part.engine, part.backend)
        self._package, self._parts, self._settings = package, parts, settings
        self._placement = placement
        self._choices = [part.engine.capabilities().kv_types for part in parts]
        # A placement always says a type; engines that keep their own are not asked for the usual one
        self._kv = None if placement and kv == "float16" and not all(self._choices) else kv
        for part in parts:
            check_kv(part.engine, self._kv)
        self._stages: list[Stage] = []
        self._head: Head | None = None

    def load(self) -> Assembly:
        try:
            self._load_on_gpu()
            budget = self._budget()
            self._load_in_memory(budget)
            assert self._head is not None  # the last part is the head
        except BaseException:
            for loaded in (*self._stages, self._head):
                if loaded is not None:
                    loaded.release()
            raise
        self._stages.sort(key=lambda stage: stage.blocks.start)
        return Assembly(
            self._parts, self._placement, self._stages, self._head, self._cache_type(), budget.context
        )

    def _cache_type(self) -> KVType:
        return (self._kv or "float16") if all(self._choices) else "float32"

    def _budget(self) -> MemoryBudget:
        """The context, and what the process holds at this moment."""
        spec, settings = self._package.spec, self._settings
        holds = any(p.engine.capabilities().holds_memory for p in self._parts if not p.on_gpu)
        if settings.memory is None or not holds:
            return MemoryBudget(context_limit(spec, settings.context), 0)
        rows = exact_rows(self._parts) if settings.lookup is None else 1 + settings.lookup
        uses_gpu = any(part.on_gpu for part in self._parts)
        return plan_budget(spec, self._cache_type(), settings.memory, settings.context, rows, uses_gpu)

    def _load_on_gpu(self) -> None:
        taken = 0
        for part in (part for part in self._parts if part.on_gpu):
            options = EngineOptions(
                threads=self._settings.threads,
                backend=part.backend,
                kv=self._kv,
                context=self._settings.context,
                gpu_memory_bytes=None if self._placement is None else self._placement.gpu_memory,
                gpu_memory_taken=taken,
            )
            try:
                self._load_part(part, options)
            except DeviceMemoryError as error:
                raise _TooLittleOnGpuError(error) from error
            taken += self._need(part, options)

    def _load_in_memory(self, budget: MemoryBudget) -> None:
        parts = {index: part for index, part in enumerate(self._parts) if not part.on_gpu}
        options = {index: self._options(part, budget) for index, part in parts.items()}
        needs = {index: self._need(part, options[index]) for index, part in parts.items() if part.count}
        head = self._parts[-1]
        head_need = 0 if head.on_gpu else self._need(head, options[len(self._parts) - 1])
        slack = max(0, (self._settings.memory or 0) - budget.taken - head_need - sum(needs.values()))
        blocks = sum(part.count for part in parts.values())
        for index, part in parts.items():
            # What other stages need, and their part of what is left over
            others = sum(
                needs[other] + slack * parts[other].count // blocks for other in needs if other != index
            )
            taken = budget.taken + (others if part.count else 0)
            self._load_part(part, replace(options[index], memory_taken=taken))

    def _options(self, part: Part, budget: MemoryBudget) -> EngineOptions:
        return EngineOptions(
            threads=self._settings.threads,
            memory_bytes=self._settings.memory,
            backend=part.backend,
            kv=self._kv,
            memory_taken=budget.taken,
            context=budget.context,
            streamed_blocks=part.streamed,
            head_here=not self._parts[-1].on_gpu,
        )

    def _load_part(self, part: Part, options: EngineOptions) -> None:
        if part.blocks is None:
            self._head = part.engine.load_head(self._package, options)
        else:
            self._stages.append(part.engine.load_blocks(self._package, part.blocks, options))

    def _need(self, part: Part, options: EngineOptions) -> int:
        """Bytes that a part holds, of engines that tell."""
        tell: Any = getattr(part.engine, "memory_need", None)
        return int(tell(self._package, part.blocks, options)) if tell else 0
