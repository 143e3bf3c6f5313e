"""Where every block of a package runs on a machine, within a user's limits.

Enters: a manifest, the machine, limits, what was measured of process and speed. Leaves: a `Plan`: a
placement, its KV type and context, what it will take and how fast it will be, and why. Raises
`ResourceError` with the least that would do where nothing fits.

The order of the choices: everything in RAM where it fits; on a GPU first, the first blocks; what fits
neither is read from disk, spread evenly over the blocks beside the GPU. A context that the user asks for is
kept and blocks give way; one that is left open gives way to blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from pocketglm.errors import InputError, ResourceError
from pocketglm.package.manifest import Manifest
from pocketglm.plan.kv_cache import KVType, kv_bytes_per_token
from pocketglm.plan.machine import Gpu, Machine
from pocketglm.plan.memory_model import Need, ProcessFigures, expected_gpu, expected_ram, reserved_ram
from pocketglm.plan.placement import Place, Placement
from pocketglm.plan.python_memory import CACHE_SHARE, LEAST_CONTEXT
from pocketglm.plan.rates import Rates
from pocketglm.plan.speed_model import Speed, predict_speed

MARGIN = 32
"""One part in this many of what is free is left alone, and `LEAST_MARGIN` at least: others use the machine
too. A limit that the user sets is his own and is used up to `LIMIT_MARGIN`."""

LEAST_MARGIN = 256 << 20
LIMIT_MARGIN = 4 << 20
"""What the process held when it was measured varies by about this from run to run."""

SHORT_CONTEXT = 2048
"""Tokens. Where fewer would fit in float16, an int8 cache is chosen, unless the user says otherwise."""


@dataclass(frozen=True)
class Limits:
    """What the user asks for; None leaves it to the planner. Memory is in bytes, `gpu_layers` the number of
    first blocks on the GPU."""

    memory: int | None = None
    gpu_memory: int | None = None
    gpu_layers: int | None = None
    context: int | None = None
    kv: KVType | None = None

    def __post_init__(self) -> None:
        for name, least in (("memory", 1), ("gpu_memory", 1), ("gpu_layers", 0), ("context", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}, expected {least} or more")


@dataclass(frozen=True)
class Measured:
    """What is known of this machine: of the process and the engine, and of the speed."""

    process: ProcessFigures
    rates: Rates


@dataclass(frozen=True)
class Plan:
    """`ram` and `gpu` are what is expected at the peak, with the context full; `ram_limit` and `gpu_limit`
    what they were to stay below. `reasons` has one line for each decision."""

    placement: Placement
    context: int
    ram: Need
    gpu: Need
    ram_limit: int
    gpu_limit: int
    gpu_used: Gpu | None
    speed: Speed
    speed_measured: bool
    reasons: tuple[str, ...]

    @property
    def whole_in_memory(self) -> bool:
        """Whether no block is read from disk at every step."""
        return not self.placement.count("disk")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `placement` is what `Placement.from_json` reads."""
        return {
            "placement": self.placement.to_dict(),
            "place": self.placement.text,
            "kv": self.placement.kv,
            "context": self.context,
            "memory_bytes": {"ram": self.ram.total, "gpu": self.gpu.total},
            "limit_bytes": {"ram": self.ram_limit, "gpu": self.gpu_limit},
            "parts": {"ram": dict(self.ram.parts), "gpu": dict(self.gpu.parts)},
            "gpu": None if self.gpu_used is None else asdict(self.gpu_used),
            "speed": {name: round(value, 4) for name, value in asdict(self.speed).items()},
            "speed_measured": self.speed_measured,
            "reasons": list(self.reasons),
        }


def plan_for(manifest: Manifest, machine: Machine, limits: Limits, measured: Measured) -> Plan:
    """The best plan within the limits. Raises `ResourceError` where there is none."""
    return _Planner(manifest, machine, limits, measured).plan()


class _Planner:
    def __init__(self, manifest: Manifest, machine: Machine, limits: Limits, measured: Measured) -> None:
        self._manifest = manifest
        self._spec = manifest.spec
        self._limits = limits
        self._measured = measured
        self._reasons = [f"assumed: {', '.join(machine.assumed)}"] if machine.assumed else []
        self._ram_limit = self._limit_of_ram(machine, limits)
        self._gpu = self._choose_gpu(machine, limits)
        self._gpu_limit = self._limit_of_gpu(limits)

    def plan(self) -> Plan:
        kv, context = self._kv_and_context()
        placement = self._place(kv, context)
        if self._limits.context is None:
            context = self._widest(placement, context)
        placement = replace(placement, context=context)
        self._say_context(kv, context)
        gpu = self._gpu if placement.uses_gpu else None
        return Plan(
            placement,
            context,
            ram=self._expected_ram(placement, context),
            gpu=expected_gpu(self._manifest, placement, context),
            ram_limit=self._ram_limit,
            gpu_limit=self._gpu_limit,
            gpu_used=gpu,
            speed=predict_speed(self._manifest, placement, context, self._measured.rates, gpu),
            speed_measured=self._measured.rates.measured and gpu is None,
            reasons=tuple(self._reasons),
        )

    # ---- limits ----

    def _limit_of_ram(self, machine: Machine, limits: Limits) -> int:
        if limits.memory is not None and limits.memory <= machine.free_memory:
            self._say(f"RAM: {_size(limits.memory)} are allowed")
            return limits.memory
        left = max(LEAST_MARGIN, machine.free_memory // MARGIN)
        self._say(f"RAM: {_size(machine.free_memory)} are free, {_size(left)} of them are left alone")
        return max(0, machine.free_memory - left)

    def _choose_gpu(self, machine: Machine, limits: Limits) -> Gpu | None:
        if not machine.gpus:
            if limits.gpu_layers:
                raise ResourceError(
                    f"{limits.gpu_layers} blocks are asked for on a GPU, and there is none",
                    hint="install PyTorch for your GPU (pocketglm[torch]), or leave out --gpu-layers",
                )
            return None
        if limits.gpu_layers == 0:
            self._say("GPU: not used, as asked")
            return None
        return max(machine.gpus, key=lambda gpu: gpu.free)

    def _limit_of_gpu(self, limits: Limits) -> int:
        if self._gpu is None:
            return 0
        left = max(LEAST_MARGIN, self._gpu.free // MARGIN)
        usable = max(0, self._gpu.free - left)
        name = self._gpu.name
        if limits.gpu_memory is not None and limits.gpu_memory <= usable:
            self._say(f"GPU: {_size(limits.gpu_memory)} of {name} are allowed")
            return limits.gpu_memory
        self._say(f"GPU: {_size(self._gpu.free)} of {name} are free, {_size(left)} of them are left alone")
        return usable

    # ---- KV cache and context ----

    def _kv_and_context(self) -> tuple[KVType, int]:
        """The KV type, and the least context that the plan is to have."""
        most = self._spec.max_context
        if self._limits.context is not None:
            asked = min(self._limits.context, most)
            kv = self._limits.kv or ("float16" if self._fits_somehow("float16", asked) else "int8")
            if kv == "int8" and self._limits.kv is None:
                self._say(f"KV cache: int8, since {asked} tokens in float16 fit nowhere")
            return kv, asked
        kv = self._limits.kv or "float16"
        context = self._share(kv)
        if self._limits.kv is None and context < min(SHORT_CONTEXT, most):
            kv, context = "int8", self._share("int8")
            self._say("KV cache: int8, since only a short context would fit in float16")
        return kv, context

    def _share(self, kv: KVType) -> int:
        """Tokens whose cache takes one part in `CACHE_SHARE` of what the process, the head and the least
        context leave; `LEAST_CONTEXT` at least."""
        least = min(LEAST_CONTEXT, self._spec.max_context)
        whole = self._streamed(self._on_gpu(0, kv), self._spec.num_blocks)
        left = self._ram_limit + self._gpu_limit - self._reserved(whole, least)
        tokens = max(0, left) // CACHE_SHARE // kv_bytes_per_token(self._spec, kv)
        return min(self._spec.max_context, least + tokens)

    def _fits_somehow(self, kv: KVType, context: int) -> bool:
        return any(self._fits(placement, context) for placement in self._least_placements(kv))

    def _least_placements(self, kv: KVType) -> Iterator[Placement]:
        """What takes the least RAM: everything from disk, with and without the GPU."""
        for on_gpu in {0, self._most_on_gpu(kv, LEAST_CONTEXT)}:
            yield self._streamed(self._on_gpu(on_gpu, kv), self._spec.num_blocks - on_gpu)

    def _widest(self, placement: Placement, context: int) -> int:
        """The largest context that fits this placement: more than `context` only where nothing is read from
        disk, since memory is better spent on blocks otherwise."""
        if placement.count("disk"):
            return context
        return _largest(lambda wider: self._fits(placement, wider), context, self._spec.max_context)

    def _say_context(self, kv: KVType, context: int) -> None:
        per_token = kv_bytes_per_token(self._spec, kv)
        why = (
            "as asked"
            if self._limits.context == context
            else "all that the model can"
            if context == self._spec.max_context
            else "what fits"
        )
        self._say(f"context: {context} tokens, {why}; {kv} keys and values take {_size(per_token)} a token")

    # ---- blocks ----

    def _place(self, kv: KVType, context: int) -> Placement:
        """As many blocks on the GPU as fit or were asked for. But a GPU takes RAM too: none are on it where
        more of them would be read from disk then, or nothing would fit."""
        most = self._blocks_on_gpu(kv, context)
        counts = [most, 0] if most and self._limits.gpu_layers is None else [most]
        fitting = [placed for count in counts if (placed := self._with_on_gpu(count, kv, context))]
        if not fitting:
            raise self._too_small(self._on_gpu(most, kv), context)
        chosen = min(fitting, key=lambda placed: placed.count("disk"))
        on_gpu = chosen.count("gpu")
        if on_gpu < most:
            self._say("GPU: no block, since what it takes of the RAM is more than it saves")
        elif self._gpu is not None:
            self._say_gpu(on_gpu, "as many as fit" if self._limits.gpu_layers is None else "as asked")
        self._say_ram(self._spec.num_blocks - on_gpu, chosen.count("disk"), chosen)
        return chosen

    def _with_on_gpu(self, on_gpu: int, kv: KVType, context: int) -> Placement | None:
        """The first blocks on the GPU, and as few of the others on disk as need be; None: nothing fits."""
        placement = self._on_gpu(on_gpu, kv)
        for count in range(self._spec.num_blocks - on_gpu + 1):
            streamed = self._streamed(placement, count)
            if self._fits(streamed, context):
                return streamed
        return None

    def _blocks_on_gpu(self, kv: KVType, context: int) -> int:
        if self._gpu is None:
            return 0
        most, asked = self._most_on_gpu(kv, context), self._limits.gpu_layers
        if asked is None:
            return most
        count = min(asked, self._spec.num_blocks)
        if count > most:
            need = expected_gpu(self._manifest, self._on_gpu(count, kv), context).total
            raise ResourceError(
                f"{count} blocks on the GPU take {_size(need)} with {context} tokens of context, "
                f"{_size(self._gpu_limit)} may be used",
                hint=f"{most} blocks fit: --gpu-layers {most}, or a shorter --context, or --kv int8",
            )
        return count

    def _most_on_gpu(self, kv: KVType, context: int) -> int:
        if self._gpu is None:
            return 0
        for count in range(self._spec.num_blocks, 0, -1):
            if expected_gpu(self._manifest, self._on_gpu(count, kv), context).total <= self._gpu_limit:
                return count
        return 0

    def _on_gpu(self, count: int, kv: KVType) -> Placement:
        """The first `count` blocks on the GPU, with all of them the head too."""
        backend = None if self._gpu is None or not count else self._gpu.backend
        settings: dict[str, Any] = {"kv": kv, "gpu_backend": backend}
        if self._limits.memory is not None:
            settings["memory"] = self._ram_limit
        if count and self._limits.gpu_memory is not None:
            settings["gpu_memory"] = self._gpu_limit
        return Placement.first_on_gpu(self._spec.num_blocks, count, **settings)

    def _streamed(self, placement: Placement, count: int) -> Placement:
        """`count` of the blocks in RAM are read from disk instead, spread evenly over them."""
        here = [index for index, place in enumerate(placement.blocks) if place == "ram"]
        chosen = {here[index] for index in spread_evenly(len(here), count)}
        places: list[Place] = [
            "disk" if index in chosen else place for index, place in enumerate(placement.blocks)
        ]
        return replace(placement, blocks=tuple(places))

    # ---- what fits ----

    def _fits(self, placement: Placement, context: int) -> bool:
        if expected_gpu(self._manifest, placement, context).total > self._gpu_limit:
            return False
        return self._reserved(placement, context) + LIMIT_MARGIN <= self._ram_limit

    def _reserved(self, placement: Placement, context: int) -> int:
        reserved = reserved_ram(self._manifest, placement, context, self._measured.process).total
        return reserved + self._gpu_process(placement)

    def _expected_ram(self, placement: Placement, context: int) -> Need:
        need = expected_ram(self._manifest, placement, context, self._measured.process)
        extra = self._gpu_process(placement)
        return Need({**need.parts, "PyTorch and the GPU's driver": extra}) if extra else need

    def _gpu_process(self, placement: Placement) -> int:
        return self._gpu.process if self._gpu is not None and placement.uses_gpu else 0

    def _too_small(self, placement: Placement, context: int) -> ResourceError:
        least = min(
            self._reserved(self._streamed(placement, count), context) for count in (0, placement.count("ram"))
        )
        asked = self._limits.context is not None
        return ResourceError(
            f"{_size(self._ram_limit)} of RAM are too little, at least {_size(least + LIMIT_MARGIN)} are "
            f"needed for {context} tokens of context, with every block read from disk",
            hint="allow more memory, or convert with fewer bits"
            + (", or take a shorter --context, or --kv int8" if asked else ""),
        )

    # ---- reasons ----

    def _say(self, line: str) -> None:
        self._reasons.append(line)

    def _say_gpu(self, count: int, why: str) -> None:
        whole = ", and the head" if count == self._spec.num_blocks else ""
        self._say(f"GPU: the first {count} of {self._spec.num_blocks} blocks{whole}, {why}")

    def _say_ram(self, rest: int, count: int, placement: Placement) -> None:
        head = placement.head == "ram"
        if not rest:
            self._say(
                "RAM: the head alone, the GPU has all blocks" if head else "RAM: the GPU has everything"
            )
        elif not count:
            self._say(f"RAM: {rest} blocks{' and the head' if head else ''}, since all of them fit")
        else:
            others = " that the GPU does not have" if placement.uses_gpu else ""
            beside = "the head, the KV cache and buffers" if head else "the KV cache and buffers"
            fitting = f"no more than {rest - count} fit" if rest > count else "none fits"
            self._say(
                f"disk: {count} of the {rest} blocks{others} are read at every step, since {fitting} "
                f"into RAM beside {beside}; they are spread evenly, so that the disk is at work during the "
                "whole step"
            )


def spread_evenly(count: int, number: int) -> Iterable[int]:
    """`number` of `count` indices, far from one another, as the native engine chooses them."""
    return [i for i in range(count) if (i + 1) * number // count > i * number // count]


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from `low` to `high` that fits; `low` where none does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _size(size: int) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"
