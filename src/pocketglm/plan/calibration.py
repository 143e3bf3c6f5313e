"""What was measured of a machine and a package, kept between runs.

Enters: a file in the user's cache folder, which anybody may have written, and what was measured now.
Leaves: `Calibration`s by key, or none, with a word on why. A file that is not ours is ignored as a whole;
the next measurement replaces it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pocketglm.plan.kv_cache import KV_TYPES
from pocketglm.plan.rates import Bandwidths, Rates, is_rate

FORMAT = "pocketglm-calibration-2"
FILE = "calibration.json"
MOST_ENTRIES = 64
MOST_FILE_BYTES = 1 << 20
MOST_RESIDENT = 1 << 40


@dataclass(frozen=True)
class Calibration:
    """`resident` is what the process holds with a package's tokenizer and engine loaded, in bytes."""

    resident: int
    rates: Rates


def calibration_key(engine: str, threads: int, package: str) -> str:
    """For one machine, one build of the engine (`engine` names it), threads and one package."""
    parts = (platform.machine(), _processor(), os.cpu_count(), engine, threads, package)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def read_calibration(path: Path, key: str) -> tuple[Calibration | None, str | None]:
    """What was kept, and a warning where the file is there and says nothing that can be used."""
    try:
        entries = _entries(path)
        entry = entries.get(key)
        return (None if entry is None else _calibration(entry)), None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return None, f"{path} is ignored: {type(error).__name__}: {str(error)[:100]}"


def write_calibration(path: Path, key: str, calibration: Calibration) -> None:
    """Keep it beside the others, the newest `MOST_ENTRIES`. Raises `OSError`."""
    try:
        entries = dict(_entries(path))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        entries = {}
    entries.pop(key, None)
    entries[key] = {"resident": calibration.resident, "rates": asdict(calibration.rates)}
    kept = dict(list(entries.items())[-MOST_ENTRIES:])
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.{os.getpid()}")
    written.write_text(json.dumps({"format": FORMAT, "entries": kept}, indent=1), "utf-8")
    os.replace(written, path)


def _entries(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        text = file.read(MOST_FILE_BYTES + 1)
    if len(text) > MOST_FILE_BYTES:
        raise ValueError("it is too large")
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data["entries"], dict):
        raise ValueError(f"it is no {FORMAT}")
    return data["entries"]


def _calibration(entry: Any) -> Calibration:
    resident = entry["resident"]
    if type(resident) is not int or not 0 < resident < MOST_RESIDENT:
        raise ValueError("resident is no size")
    rates = entry["rates"]
    numbers = {field.name for field in fields(Rates)} - {"bandwidths", "position_s", "measured"}
    positions = {kv: _rate(rates["position_s"][kv], least=0) for kv in KV_TYPES}
    bandwidths = Bandwidths(
        **{field.name: _rate(rates["bandwidths"][field.name]) for field in fields(Bandwidths)}
    )
    may_be_zero = ("row_position_s", "crowding")
    values = {name: _rate(rates[name], least=0 if name in may_be_zero else None) for name in numbers}
    values["block_bytes"] = int(values["block_bytes"])
    if values["crowding"] >= 1:
        raise ValueError("crowding leaves nothing")
    return Calibration(resident, Rates(bandwidths=bandwidths, position_s=positions, **values))


def _rate(value: object, least: float | None = None) -> Any:
    """A positive number, or 0 too with `least` 0."""
    if least == 0 and value == 0 and not isinstance(value, bool):
        return 0.0
    if not is_rate(value):
        raise ValueError(f"{str(value)[:40]!r} is no rate")
    return value


def _processor() -> str:
    """The CPU's name, as far as the system says it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
