"""`--assume`: another machine than this one, in a few words.

Enters: text such as `gpu=11GiB,ram=8GiB,disk=2GB/s`. Leaves: a `Machine` and `Bandwidths` that differ from
this machine's in what was said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pocketglm.cli.sizes import format_size, parse_size
from pocketglm.errors import InputError
from pocketglm.plan.machine import Gpu, Machine
from pocketglm.plan.rates import Bandwidths

SIZES = ("ram", "gpu")
RATES = ("disk", "read", "gpu-read")
HINT = "write it like gpu=11GiB,ram=8GiB,disk=2GB/s,read=40GB/s,gpu-read=600GB/s; gpu=none for none"

GPU_PROCESS = 700 << 20
"""What PyTorch with a GPU's driver adds to a process where it cannot be measured: an assumption."""


def parse_assumptions(text: str) -> dict[str, int]:
    """Bytes, or bytes per second, by name. Raises `InputError`."""
    found: dict[str, int] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in (*SIZES, *RATES) or not equals:
            raise InputError(f"{item.strip()!r} is no assumption", hint=HINT)
        if name in found:
            raise InputError(f"{name} is assumed twice", hint=HINT)
        found[name] = _value(name, value)
    return found


def assumed_machine(machine: Machine, assumed: Mapping[str, int]) -> Machine:
    """`machine` with other memory and another GPU."""
    if "ram" in assumed:
        machine = replace(machine, free_memory=assumed["ram"])
    if "gpu" in assumed:
        rate = assumed.get("gpu-read")
        gpu = Gpu("the assumed GPU", "cuda", assumed["gpu"], GPU_PROCESS, rate)
        machine = replace(machine, gpus=(gpu,) if assumed["gpu"] else ())
    elif "gpu-read" in assumed:
        gpus = tuple(replace(gpu, read_bytes_per_s=assumed["gpu-read"]) for gpu in machine.gpus)
        machine = replace(machine, gpus=gpus)
    words = tuple(_words(name, value) for name, value in assumed.items())
    return replace(machine, assumed=words)


def assumed_bandwidths(bandwidths: Bandwidths, assumed: Mapping[str, int]) -> Bandwidths:
    """`bandwidths` with other ones for RAM and disk."""
    return replace(
        bandwidths,
        read=assumed.get("read", bandwidths.read),
        disk=assumed.get("disk", bandwidths.disk),
    )


def _words(name: str, value: int) -> str:
    if name in SIZES:
        return f"{name}={format_size(value) if value else 'none'}"
    return f"{name}={format_size(value)}/s"


def _value(name: str, value: str) -> int:
    if name == "gpu" and value in ("none", "0"):
        return 0
    if name in SIZES:
        return parse_size(value)
    if not value.endswith("/s"):
        raise InputError(f"{name}={value} is no rate", hint=HINT)
    return parse_size(value.removesuffix("/s"))
