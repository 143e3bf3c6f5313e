"""What is known of this machine and a package: measured now, or kept from an earlier time.

Enters: a package. Leaves: what a plan needs, from the calibration file in the user's cache folder where it
is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pocketglm import __version__
from pocketglm.cli import console
from pocketglm.cli.assume import assumed_bandwidths, assumed_machine
from pocketglm.plan.machine import Machine, available_cpus, this_machine
from pocketglm.plan.planner import Limits, Measured, Plan, plan_for

if TYPE_CHECKING:
    from pocketglm.package.reader import Package
    from pocketglm.plan.calibration import Calibration
    from pocketglm.plan.rates import Rates


def plan_package(
    package: Package,
    limits: Limits,
    assumed: Mapping[str, int] | None = None,
    threads: int | None = None,
    again: bool = False,
) -> Plan:
    """A plan for this machine, or for another one. `again` measures what was kept."""
    machine = assumed_machine(_machine(limits, assumed or {}), assumed or {})
    with measured(package, machine, assumed or {}, threads or available_cpus(), again) as known:
        return plan_for(package.manifest, machine, limits, known)


@contextmanager
def measured(
    package: Package, machine: Machine, assumed: Mapping[str, int], threads: int, again: bool
) -> Iterator[Measured]:
    """What was measured, while the package is open."""
    from pocketglm.engine.native.figures import work_figures
    from pocketglm.plan.memory_model import ProcessFigures

    kept = calibration(package, threads, again)
    rates = _assumed_rates(kept.rates, assumed)
    with work_figures(package, threads) as work:
        yield Measured(ProcessFigures(kept.resident, threads, work.work, work.head), rates)


def calibration(package: Package, threads: int, again: bool = False) -> Calibration:
    """Kept or measured; measured, it is kept, where the cache folder can be written."""
    from pocketglm.convert.user_cache import cache_directory
    from pocketglm.engine.native.figures import engine_build
    from pocketglm.plan.calibration import FILE, calibration_key, read_calibration, write_calibration

    path = cache_directory() / FILE
    key = calibration_key(f"{__version__} {engine_build()}", threads, package.fingerprint)
    kept, warning = read_calibration(path, key)
    if warning:
        console.note(f"warning: {warning}")
    if kept is not None and not again:
        return kept
    console.note("measuring this machine with this package: some seconds")
    found = _measure(package, threads)
    try:
        write_calibration(path, key, found)
    except OSError as error:
        console.note(f"warning: what was measured cannot be kept ({error})")
    return found


def _measure(package: Package, threads: int) -> Calibration:
    from pocketglm.cli.footprint import measure_footprint
    from pocketglm.engine.native.calibrate import measure_bandwidths, measure_rates
    from pocketglm.plan.calibration import Calibration

    resident = measure_footprint(package.path, threads)
    return Calibration(resident, measure_rates(package, threads, measure_bandwidths(package, threads)))


def _assumed_rates(rates: Rates, assumed: Mapping[str, int]) -> Rates:
    bandwidths = assumed_bandwidths(rates.bandwidths, assumed)
    return rates if bandwidths == rates.bandwidths else rates.on(bandwidths)


def _machine(limits: Limits, assumed: Mapping[str, int]) -> Machine:
    """This machine. Its GPUs are looked for only where they may be used; what that takes of this process's
    memory it takes of another's too."""
    from pocketglm.engine.torch.gpus import available_gpus
    from pocketglm.generate.memory_budget import resident_bytes

    if limits.gpu_layers == 0 or "gpu" in assumed:
        return this_machine()
    before = resident_bytes()
    gpus = available_gpus()
    added = max(0, resident_bytes() - before)
    return this_machine(replace(gpu, process=added) for gpu in gpus)
