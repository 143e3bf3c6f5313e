"""`pocketglm plan`: where blocks go on this machine or another, what that takes, and why."""

from __future__ import annotations

import shlex
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketglm.cli import console, options
from pocketglm.cli.sizes import exact_size, format_size

if TYPE_CHECKING:
    from pocketglm.plan.memory_model import Need
    from pocketglm.plan.planner import Plan


def _assumptions(text: str) -> dict[str, int]:
    from pocketglm.cli.assume import parse_assumptions

    return options.parsed(parse_assumptions, text)


def plan(
    package: options.PackageArgument,
    memory: options.MemoryOption = None,
    gpu_memory: Annotated[
        int | None,
        typer.Option(
            "--gpu-memory", parser=options.size, metavar="SIZE", help="Memory of the GPU that may be used."
        ),
    ] = None,
    gpu_layers: Annotated[
        int | None,
        typer.Option("--gpu-layers", min=0, metavar="N", help="Blocks on the GPU, the first ones; 0: none."),
    ] = None,
    context: options.ContextOption = None,
    kv: options.KvOption = None,
    threads: options.ThreadsOption = None,
    assume: Annotated[
        Any,
        typer.Option(
            "--assume",
            parser=_assumptions,
            metavar="LIST",
            help="Plan for another machine: gpu=11GiB,ram=8GiB (what is free there), disk=2GB/s,read=40GB/s,"
            "gpu-read=600GB/s. What is left out is as here.",
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine again, instead of what was kept.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Plan where every block goes, what that takes, how fast it is, and why.

    Reads no weights but some for a measurement of a few seconds, which is kept for the next time.
    """
    from pocketglm.cli.measure import plan_package
    from pocketglm.package.reader import Package
    from pocketglm.plan.planner import Limits

    limits = Limits(memory, gpu_memory, gpu_layers, context, kv)
    with Package.open(package) as opened:
        made = plan_package(opened, limits, assume, threads, calibrate)
    if json:
        console.report({**made.to_dict(), "command": run_command(package, made, limits.memory)})
        return
    console.answer(console.table(place_rows(made)))
    console.answer("\n" + console.table(_memory_rows(made)))
    console.answer("\n" + console.pairs(_speed_rows(made)))
    console.answer("\n" + "\n".join(f"- {reason}" for reason in made.reasons))
    console.answer("\n" + run_command(package, made, limits.memory))


def run_command(package: Path, plan: Plan, memory: int | None) -> str:
    """The command that runs a plan."""
    words = ["pocketglm", "run", str(package)]
    if plan.placement.uses_gpu or plan.placement.count("disk"):
        words += ["--place", plan.placement.text]
    words += ["--context", str(plan.context), "--kv", plan.placement.kv]
    if memory is not None and plan.placement.memory is not None:
        words += ["--memory", exact_size(plan.placement.memory)]
    return shlex.join(words)


def place_rows(plan: Plan) -> list[list[str]]:
    """Runs of blocks that are in one place."""
    rows = [["blocks", "place"]]
    for place, numbered in groupby(enumerate(plan.placement.blocks), key=lambda item: item[1]):
        members = [index for index, _ in numbered]
        first, last = members[0], members[-1]
        rows.append([str(first) if first == last else f"{first}-{last}", place])
    return [*rows, ["head", plan.placement.head]]


def _memory_rows(plan: Plan) -> list[list[str]]:
    rows = [["expected at the peak", ""]]
    rows += _need_rows("RAM", plan.ram, plan.ram_limit)
    if plan.gpu.total:
        rows += _need_rows("GPU", plan.gpu, plan.gpu_limit)
    return rows


def _need_rows(device: str, need: Need, limit: int) -> list[list[str]]:
    parts = [[f"  {name}", format_size(size)] for name, size in need.parts.items() if size]
    return [[f"{device}, of {format_size(limit)}", format_size(need.total)], *parts]


def _speed_rows(plan: Plan) -> list[tuple[str, str]]:
    speed = plan.speed
    how = "" if plan.speed_measured else " (worked out, not measured)"
    return [
        ("load", f"{speed.load_s:.1f} s{how}"),
        ("prefill", f"{speed.prefill_tps:.1f} tokens/s of {plan.context}"),
        ("decode", f"{speed.decode_tps:.2f} tokens/s at {plan.context} tokens"),
    ]
