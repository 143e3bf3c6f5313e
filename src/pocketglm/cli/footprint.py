"""What a process holds once a package is opened and before any weight is used, measured in a fresh one.

Enters: a package and settings. Leaves: bytes. The fresh process imports and opens what `pocketglm run` and
`bench` do; run as a program, this module is that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pocketglm.errors import EngineError

TIMEOUT_S = 120


@dataclass(frozen=True)
class Footprint:
    """Bytes: `resident` without a GPU, `gpu` what using one adds."""

    resident: int
    gpu: int


def measure_footprint(package: Path, threads: int, gpu: str | None) -> Footprint:
    """`gpu` is the backend of a GPU that is to be used, or None. Raises `EngineError`."""
    command = [sys.executable, "-m", "pocketglm.cli.footprint", str(package), str(threads), gpu or ""]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        raise EngineError(
            f"what a process takes cannot be measured: {str(told).strip().splitlines()[-1][:200]}"
        ) from error
    return Footprint(found["resident"], found["gpu"])


def _measure(package: Path, threads: int, gpu: str) -> Footprint:
    from pocketglm.cli import main  # noqa: F401 - it is what a command imports
    from pocketglm.generate.bench import bench_prompts
    from pocketglm.generate.memory_budget import resident_bytes
    from pocketglm.generate.model import load

    with load(package, "native", threads) as model, model.session():
        bench_prompts(model, 64, 1)
        resident = resident_bytes()
        if not gpu:
            return Footprint(resident, 0)
        from pocketglm.engine.torch.device import open_device

        open_device(gpu)
        return Footprint(resident, resident_bytes() - resident)


if __name__ == "__main__":
    print(json.dumps(vars(_measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))))
