"""Where every block of a model runs.

Enters: a planner's or a user's choice, or a file that says one. Leaves: a checked `Placement`, and the
runs of blocks that become stages. Files are untrusted input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any, Literal, get_args

from pocketglm.errors import InputError
from pocketglm.plan.kv_cache import KV_TYPES, KVType

Place = Literal["gpu", "ram", "disk"]
"""In the memory of a GPU; in the process's memory; or read from disk at every pass."""

PLACES: tuple[Place, ...] = get_args(Place)
FORMAT = "pocketglm-placement-1"
MOST_BLOCKS = 4096
"""More blocks than any model has: what a hostile file may make us hold."""
MOST_BYTES = 1 << 50
_NAME = re.compile(r"[A-Za-z0-9_:.-]{1,40}")
_RUN = re.compile(r"(?P<place>gpu|ram|disk):(?:(?P<head>head)|(?P<first>\d{1,4})(?:-(?P<last>\d{1,4}))?)")
HINT = "write it like gpu:0-9,ram:10-26,disk:27,ram:head"


@dataclass(frozen=True)
class Run:
    """Consecutive blocks of one stage. Of a run in RAM, the blocks in `streamed` are read from disk."""

    blocks: range
    place: Literal["gpu", "ram"]
    engine: str
    backend: str | None
    streamed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Placement:
    """One place for each block, and what the plan was made for.

    `head` is where the final norm and the output projection are. `context` is the most tokens of a
    session (None: the model's own). `memory` and `gpu_memory` are limits in bytes that the run keeps
    to: of the whole process, and of the GPU. Blocks in RAM and on disk belong to `cpu_engine`.
    """

    blocks: tuple[Place, ...]
    head: Literal["gpu", "ram"] = "ram"
    kv: KVType = "float16"
    context: int | None = None
    gpu_engine: str = "torch"
    cpu_engine: str = "native"
    gpu_backend: str | None = None
    cpu_backend: str | None = None
    memory: int | None = None
    gpu_memory: int | None = None

    def __post_init__(self) -> None:
        _check_blocks(self.blocks)
        if self.head not in ("gpu", "ram"):
            raise InputError(f"the head's place is {_shown(self.head)}, expected gpu or ram")
        if self.kv not in KV_TYPES:
            raise InputError(f"kv is {_shown(self.kv)}, expected one of {', '.join(KV_TYPES)}")
        for name in ("gpu_engine", "cpu_engine"):
            _check_name(name, getattr(self, name))
        for name in ("gpu_backend", "cpu_backend"):
            if getattr(self, name) is not None:
                _check_name(name, getattr(self, name))
        for name, most in (("context", 2**31 - 1), ("memory", MOST_BYTES), ("gpu_memory", MOST_BYTES)):
            _check_number(name, getattr(self, name), most)

    @classmethod
    def first_on_gpu(cls, num_blocks: int, on_gpu: int, **settings: Any) -> Placement:
        """The first `on_gpu` blocks on the GPU, the others in RAM; with all of them, the head too.

        The first ones, because hidden states then cross to the GPU and back once a pass, the logits,
        which are larger, stay where the sampler is, and blocks on disk, which come last, are read while
        the GPU computes.
        """
        if on_gpu < 0:
            raise InputError(f"{on_gpu} blocks on the GPU were asked for, expected 0 or more")
        there = min(on_gpu, num_blocks)
        places: list[Place] = ["gpu" if index < there else "ram" for index in range(num_blocks)]
        return cls(tuple(places), head="gpu" if there == num_blocks else "ram", **settings)

    @classmethod
    def parse(cls, text: str, **settings: Any) -> Placement:
        """From `gpu:0-9,ram:10-26,disk:27,ram:head`: every block once; the head is in RAM if left out."""
        places: dict[int, Place] = {}
        for item in text.split(","):
            match = _RUN.fullmatch(item.strip())
            if match is None:
                raise InputError(f"{_shown(item)} is no part of a placement", hint=HINT)
            place = match["place"]
            if match["head"]:
                if "head" in settings:
                    raise InputError("the placement names the head twice", hint=HINT)
                settings["head"] = place
                continue
            for block in _block_range(match["first"], match["last"] or match["first"]):
                if block in places:
                    raise InputError(f"the placement names block {block} twice", hint=HINT)
                places[block] = _place(place)
        missing = next((block for block in range(len(places)) if block not in places), None)
        if missing is not None:
            raise InputError(f"the placement leaves out block {missing}", hint=HINT)
        return cls(tuple(places[block] for block in range(len(places))), **settings)

    @property
    def text(self) -> str:
        """What `parse` reads: the places of blocks and head, nothing else."""
        runs = [
            f"{place}:{first}" if first == last else f"{place}:{first}-{last}"
            for place, first, last in _stretches(self.blocks)
        ]
        return ",".join([*runs, f"{self.head}:head"])

    @property
    def uses_gpu(self) -> bool:
        return self.head == "gpu" or "gpu" in self.blocks

    def count(self, place: Place) -> int:
        """Blocks in a place."""
        return self.blocks.count(place)

    def runs(self) -> tuple[Run, ...]:
        """The stages: runs of blocks on the GPU, and runs beside it, in the order of the blocks."""
        found: list[Run] = []
        for on_gpu, numbered in groupby(enumerate(self.blocks), key=lambda item: item[1] == "gpu"):
            members = [index for index, _ in numbered]
            blocks = range(members[0], members[-1] + 1)
            if on_gpu:
                found.append(Run(blocks, "gpu", self.gpu_engine, self.gpu_backend))
            else:
                streamed = frozenset(index for index in blocks if self.blocks[index] == "disk")
                found.append(Run(blocks, "ram", self.cpu_engine, self.cpu_backend, streamed))
        return tuple(found)

    def check_fits(self, num_blocks: int) -> None:
        """Raises `InputError` where the placement is for a model with another number of blocks."""
        if len(self.blocks) != num_blocks:
            raise InputError(
                f"the placement is for {len(self.blocks)} blocks, the model has {num_blocks}",
                hint="make a plan for this package: pocketglm plan DIR --json",
            )

    def with_fewer_on_gpu(self, count: int) -> Placement:
        """`count` blocks less on the GPU, taken where blocks in RAM or on disk adjoin; the head last.

        They go to disk where others are on disk already, since the RAM is full then, else to RAM. Raises
        `InputError` where nothing is on the GPU.
        """
        if not self.uses_gpu:
            raise InputError("nothing is left on the GPU that could be moved off it")
        on_gpu = [index for index, place in enumerate(self.blocks) if place == "gpu"]
        if not on_gpu:
            return replace(self, head="ram")
        last_is_edge = on_gpu[-1] + 1 < len(self.blocks) or on_gpu[0] == 0
        leaving = set(on_gpu[-count:] if last_is_edge else on_gpu[:count])
        to: Place = "disk" if "disk" in self.blocks else "ram"
        places = tuple(to if index in leaving else place for index, place in enumerate(self.blocks))
        return replace(self, blocks=places)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads; numbers, texts, lists and None only."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"format": FORMAT, **data, "blocks": list(self.blocks)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Placement:
        """Raises `InputError` for whatever `to_dict` does not make."""
        if not isinstance(data, Mapping):
            raise InputError(f"a placement is a JSON object, found {type(data).__name__}")
        if data.get("format") != FORMAT:
            raise InputError(
                f"the placement's format is {_shown(data.get('format'))}, expected {FORMAT}",
                hint="make the plan again with this version: pocketglm plan DIR --json",
            )
        names = {field.name for field in fields(cls)}
        unknown = sorted(_shown(name) for name in data if name not in names | {"format"})
        if unknown:
            raise InputError(f"the placement has unknown fields: {', '.join(unknown[:5])}")
        missing = sorted(names - set(data))
        if missing:
            raise InputError(f"the placement lacks {', '.join(missing)}")
        if not isinstance(data["blocks"], list):
            raise InputError("the placement's blocks are no list")
        return cls(**{name: data[name] for name in names - {"blocks"}}, blocks=tuple(data["blocks"]))

    @classmethod
    def from_json(cls, text: str | bytes) -> Placement:
        """From what `to_json` makes, or an object that has it as its `placement`, as a plan has."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a plan in JSON ({type(error).__name__}: {str(error)[:100]})") from None
        if isinstance(data, dict) and "format" not in data and "placement" in data:
            data = data["placement"]
        return cls.from_dict(data)


def _check_blocks(blocks: Sequence[object]) -> None:
    if not isinstance(blocks, tuple) or not 1 <= len(blocks) <= MOST_BLOCKS:
        raise InputError(f"a placement has 1 to {MOST_BLOCKS} blocks in a tuple")
    for index, place in enumerate(blocks):
        if place not in PLACES:
            raise InputError(f"block {index} is at {_shown(place)}, expected one of {', '.join(PLACES)}")


def _check_name(field: str, name: object) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InputError(f"{field} is {_shown(name)}, expected a name")


def _check_number(field: str, number: object, most: int) -> None:
    if number is None:
        return
    if type(number) is not int or not 1 <= number <= most:
        raise InputError(f"{field} is {_shown(number)}, expected a number from 1 to {most}, or none")


def _block_range(first: str, last: str) -> range:
    if not int(first) <= int(last) < MOST_BLOCKS:
        raise InputError(f"{first}-{last} is no range of blocks", hint=HINT)
    return range(int(first), int(last) + 1)


def _place(name: str) -> Place:
    return next(place for place in PLACES if place == name)


def _stretches(blocks: Sequence[Place]) -> Iterator[tuple[Place, int, int]]:
    """(place, first, last) of runs of equal places."""
    for place, numbered in groupby(enumerate(blocks), key=lambda item: item[1]):
        members = [index for index, _ in numbered]
        yield place, members[0], members[-1]


def _shown(value: object) -> str:
    """A value from a file, short enough for a message."""
    return repr(value)[:60]
