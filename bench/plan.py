"""Plans beside what happens: `python bench/plan.py --folder DIR [--models NAMES] [--output FILE]`.

For each combination of model, context, KV type and memory limit, the planner predicts peak memory and
speed; then a process of its own runs it, under a hard limit of the kernel a little above the prediction,
and reports its peak (VmHWM) and the rate of the 64 tokens that fill the context, after some seconds of the
same. Prints a line for each and, at the end, one JSON object. Models are made in `--folder` once. A disk
that others use too is faster at one time than at another: `--add` makes another round of what is in the
report, measuring the machine again, and medians of all rounds count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from hard_limit import Finished, available, run_limited
from plan_models import MODELS, prepared

from pocketglm.cli.measure import calibration, measured
from pocketglm.package.reader import Package
from pocketglm.plan.kv_cache import KVType
from pocketglm.plan.machine import this_machine
from pocketglm.plan.memory_model import reserved_ram
from pocketglm.plan.native_memory import block_sizes
from pocketglm.plan.placement import Placement
from pocketglm.plan.planner import LIMIT_MARGIN, Limits, Measured, Plan, plan_for

INNER = Path(__file__).with_name("plan_run.py")
THREADS = 2
HARD_PART = 32
"""The hard limit is one part in this many above what is predicted, and `HARD_ROOM` more: for the kernel's
own pages."""
HARD_ROOM = 12 << 20


@dataclass(frozen=True)
class Combination:
    """`part` of the blocks' bytes is what the memory limit leaves room for; None: no limit."""

    model: str
    context: int
    kv: KVType
    part: float | None = None


COMBINATIONS = tuple(
    Combination(model, *rest)
    for model, cases in {
        "smollm2-int4": (
            (256, "float16"), (1024, "float16"), (4096, "float16"), (4096, "int8"),
            (256, "float16", 0.5), (1024, "float16", 0.7), (1024, "int8", 0.5),
        ),
        "smollm2-int8": (
            (256, "float16"), (2048, "int8"), (4096, "float16"), (1024, "float16", 0.7),
            (1024, "float16", 0.5),
        ),
        "chatglm-int4": (
            (256, "float16"), (1024, "float16"), (2048, "float16"), (2048, "int8"),
            (1024, "float16", 0.7), (1024, "int8", 0.5),
        ),
        "llama-int4": (
            (256, "float16"), (1024, "float16"), (4096, "float16"), (4096, "int8"),
            (1024, "float16", 0.7), (1024, "float16", 0.5),
        ),
    }.items()
    for rest in cases
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where models are made")
    parser.add_argument("--gguf", type=Path, help="SmolLM2-135M-Instruct, to make its packages of")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--output", type=Path, required=True, help="a report to add the rows to")
    parser.add_argument("--add", action="store_true", help="another round of the rows that are there")
    given = parser.parse_args()
    if not available():
        sys.exit("this machine does not let us make a cgroup, so there is no hard limit to run under")
    rows = []
    for model in given.models.split(","):
        package = prepared(given.folder, model, given.gguf)
        for row in measure_model(package, model):
            print(line_of(row), file=sys.stderr, flush=True)
            rows.append(row)
    before = json.loads(given.output.read_text("utf-8"))["rows"] if given.output.exists() else []
    report = merged(before, rows, given.add)
    print(json.dumps(report))
    given.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def measure_model(path: Path, model: str) -> Iterator[dict[str, Any]]:
    """All combinations of one model; the machine is measured with it first."""
    with Package.open(path) as package:
        calibration(package, THREADS, again=True)
        with measured(package, this_machine(), {}, THREADS, again=False) as known:
            for case in COMBINATIONS:
                if case.model == model:
                    yield measure(package, case, known)


def measure(package: Package, case: Combination, known: Measured) -> dict[str, Any]:
    """One combination: what is predicted, then what is."""
    limits = Limits(limit_of(package, case, known), context=case.context, kv=case.kv)
    plan = plan_for(package.manifest, this_machine(), limits, known)
    hard = plan.ram.total + plan.ram.total // HARD_PART + HARD_ROOM
    forget(package.path)
    task = {"package": str(package.path), "placement": plan.placement.to_dict(), "threads": THREADS}
    done = run_limited([sys.executable, str(INNER), json.dumps(task)], hard)
    return row_of(case, plan, hard, done)


def limit_of(package: Package, case: Combination, known: Measured) -> int | None:
    """A memory limit that leaves room for a part of the blocks."""
    if case.part is None:
        return None
    blocks = package.spec.num_blocks
    whole = Placement(("ram",) * blocks, kv=case.kv)
    need = reserved_ram(package.manifest, whole, case.context, known.process).total + LIMIT_MARGIN
    return need - round((1 - case.part) * sum(block_sizes(package.manifest, range(blocks)).values()))


def row_of(case: Combination, plan: Plan, hard: int, done: Finished) -> dict[str, Any]:
    if done.code:
        sys.exit(f"{case}: exit code {done.code} under {hard} bytes: {done.stderr}")
    found = json.loads(done.stdout)
    return {
        **vars(case),
        "limit_bytes": plan.placement.memory,
        "streamed_blocks": plan.placement.count("disk"),
        "blocks": len(plan.placement.blocks),
        "hard_limit_bytes": hard,
        "charged_bytes": done.peak,
        "parts": dict(plan.ram.parts),
        **of_rounds([{"predicted": {"peak_bytes": plan.ram.total, **vars(plan.speed)}, "measured": found}]),
    }


def of_rounds(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The rounds of a row, and the medians of what was predicted and measured in them."""
    medians = {
        kind: {name: statistics.median(one[kind][name] for one in rounds) for name in rounds[0][kind]}
        for kind in ("predicted", "measured")
    }
    return {**medians, "rounds": rounds}


def line_of(row: Mapping[str, Any]) -> str:
    predicted, found = row["predicted"], row["measured"]
    peak, decode, prefill = (
        (predicted[name], found[name], predicted[name] / found[name] - 1)
        for name in ("peak_bytes", "decode_tps", "prefill_tps")
    )
    return (
        f"{row['model']:13s} {row['context']:5d} {row['kv']:8s} {row['streamed_blocks']:2d} from disk: "
        f"peak {peak[0] / 2**20:6.1f} for {peak[1] / 2**20:6.1f} MiB ({peak[2]:+.1%}), "
        f"decode {decode[0]:6.1f} for {decode[1]:6.1f} ({decode[2]:+.0%}), "
        f"prefill {prefill[0]:6.0f} for {prefill[1]:6.0f} ({prefill[2]:+.0%})"
    )


def merged(before: list[dict[str, Any]], rows: list[dict[str, Any]], add: bool) -> dict[str, Any]:
    """The report; rows of other models that are there already stay, those of the same ones if `add`."""
    models, order = {row["model"] for row in rows}, list(MODELS)
    kept = [row for row in before if row["model"] not in models]
    if add:
        earlier = {combination_of(row): row["rounds"] for row in before}
        rows = [{**row, **of_rounds([*earlier.get(combination_of(row), []), *row["rounds"]])} for row in rows]
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "threads": THREADS,
        "load_average": os.getloadavg(),
        "date": date.today().isoformat(),
        "command": "python bench/plan.py --folder DIR",
        "rows": sorted([*kept, *rows], key=lambda row: order.index(row["model"])),
    }


def combination_of(row: Mapping[str, Any]) -> Combination:
    return Combination(*(row[field.name] for field in fields(Combination)))


def forget(package: Path) -> None:
    """Drop the package's files from the page cache, so that whoever reads them next is charged."""
    for file in package.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    main()
