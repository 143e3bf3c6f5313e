"""Size and fidelity of one model in several formats: the table in README.md and docs/guides/choosing-bits.md.

    python docs/measure_formats.py SmolLM2-135M-Instruct.Q4_1.gguf

Enters: a checkpoint. Leaves: `docs/measurements/formats.json` with the commands that were run, the
package sizes, and what `pocketglm eval` says against the float32 package. Packages go to a temporary
folder and are removed; about 1.5 GB of disk is needed for SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULT = DOCS / "measurements" / "formats.json"
TEXT = DOCS.parent / "bench" / "evaluation_text.txt"
FORMATS = {
    "float32": ["--bits", "32"],
    "float16": ["--bits", "16"],
    "int8, groups of 64": ["--bits", "8"],
    "int4, groups of 32": ["--bits", "4", "--group", "32"],
    "int4, groups of 64": ["--bits", "4", "--group", "64"],
    "int4, groups of 32, int4 head": ["--bits", "4", "--group", "32", "--head-bits", "4"],
}


def pocketglm(*arguments: object) -> dict[str, Any]:
    """One command with `--json`, run as users run it."""
    line = [sys.executable, "-m", "pocketglm", *map(str, arguments), "--json"]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(source: Path, folder: Path) -> list[dict[str, Any]]:
    """One row a format; the first is the float32 package that the others are compared with."""
    rows, reference = [], folder / "package-0"
    for number, (name, options) in enumerate(FORMATS.items()):
        package = folder / f"package-{number}"
        size = pocketglm("convert", source, "-o", package, *options)["package_bytes"]
        found = pocketglm("eval", package, "--text", TEXT, "--against", reference)
        rows.append(
            {"format": name, "options": " ".join(options), "package_bytes": size}
            | {key: found[key] for key in ("perplexity", "kl", "top1", "tokens")}
        )
        print(f"{name}: {rows[-1]}", file=sys.stderr)
    return rows


def processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure size and fidelity of a model in several formats.")
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(source, Path(folder))
    data = {"source": source.name, "text": f"bench/{TEXT.name}", "engine": "reference"}
    data |= {"machine": processor(), "python": platform.python_version(), "date": date.today().isoformat()}
    RESULT.write_text(json.dumps({**data, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
