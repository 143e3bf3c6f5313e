"""What a process holds once a package is opened and before any weight is used, measured in a fresh one.

Enters: a package and settings. Leaves: bytes. The fresh process imports and opens what `pocketglm run` and
`bench` do; run as a program, this module is that process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pocketglm.errors import EngineError

TIMEOUT_S = 120


def measure_footprint(package: Path, threads: int) -> int:
    """Resident memory of the process, mapped files included. Raises `EngineError`."""
    command = [sys.executable, "-m", "pocketglm.cli.footprint", str(package), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        return int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        raise EngineError(
            f"what a process takes cannot be measured: {str(told).strip().splitlines()[-1][:200]}"
        ) from error


def _resident(package: Path, threads: int) -> int:
    from pocketglm.cli import main  # noqa: F401 - it is what a command imports
    from pocketglm.generate.bench import bench_prompts
    from pocketglm.generate.memory_budget import resident_bytes
    from pocketglm.generate.model import load

    with load(package, "native", threads) as model, model.session():
        bench_prompts(model, 64, 1)
        return resident_bytes()


if __name__ == "__main__":
    print(_resident(Path(sys.argv[1]), int(sys.argv[2])))
