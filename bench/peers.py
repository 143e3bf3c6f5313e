"""PocketGLM beside its peers on one model: `python bench/peers.py [--case block8] [--output FILE]`.

Nothing is installed: who is not there is left out and named. Each peer may have a Python environment of its
own (`--python llama.cpp=/path/to/python`). Models have random weights, the same for everybody, and are
written once, in each peer's format, into a cache folder. docs/benchmarks.md explains cases and figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from peers.models import SHAPES, Case
from peers.registry import PEERS, Environments, Peer
from peers.report import machine_medians, rows_of, table
from peers.rounds import Measured, measure
from peers.task import Task

FIRST_PROMPT = 256
SMOLLM2 = Path(".venv") / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    options = parse()
    environments = Environments(pairs(options.python), pairs(options.path))
    case = Case(options.case, options.cache.resolve(), given_files(options))
    there = [peer for peer in chosen(options) if reason_against(peer, environments) is None]
    models = [(peer, case.prepare(peer, environments)) for peer in there]
    task = Task(
        model="",
        threads=options.threads,
        first_prompt=options.first_prompt,
        prompts=options.prompts,
        contexts=options.contexts,
        sequences=options.sequences,
        new_tokens=options.new_tokens,
        vocabulary=case.vocabulary(),
    )
    if options.rounds == 0:
        return
    found = measure(models, task, options.rounds, environments)
    report = make_report(found, case, task, options)
    print(table(report["rows"], report["limits"]))
    if options.output:
        save(options.output, report)
    print(json.dumps(report))
    if not report["rows"]:
        sys.exit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=[*SHAPES, "smollm2"], default="block8")
    parser.add_argument("--peers", default="", help=f"some of {', '.join(peer.name for peer in PEERS)}")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PYTHON", help="interpreter that has a peer"
    )
    parser.add_argument(
        "--path", action="append", default=[], metavar="PEER=DIR", help="folder of a peer's Python module"
    )
    parser.add_argument("--rounds", type=int, default=3, help="0: only write the models")
    parser.add_argument(
        "--first-prompt", type=int, default=FIRST_PROMPT, help="tokens of a fresh process's first prompt"
    )
    parser.add_argument("--prompts", type=sizes, default=(256,), help="tokens, comma-separated")
    parser.add_argument("--contexts", type=sizes, default=(16,), help="tokens before the decoded ones")
    parser.add_argument("--sequences", type=sizes, default=(), help="sequences decoded together")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=None, help="folder for models (the user's cache)")
    parser.add_argument("--package", type=Path, help="PocketGLM's package, in place of a random one")
    parser.add_argument("--gguf", type=Path, default=SMOLLM2, help="the file of the case smollm2")
    parser.add_argument("--output", type=Path, help="result file; other cases in it stay")
    options = parser.parse_args()
    if options.cache is None:
        from pocketglm.convert.user_cache import cache_directory

        options.cache = cache_directory() / "bench-peers"
    return options


def sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def pairs(texts: list[str]) -> dict[str, str]:
    """`PEER=VALUE` options; unknown names are refused."""
    found = dict(text.partition("=")[::2] for text in texts)
    if unknown := set(found) - {peer.name for peer in PEERS}:
        raise SystemExit(f"unknown peer: {', '.join(sorted(unknown))}")
    return found


def given_files(options: argparse.Namespace) -> dict[str, Path]:
    given = {}
    if options.package:
        given["chatglm-package" if options.case == "chatglm-6b" else "package"] = options.package.resolve()
    if options.case == "smollm2":
        if not options.gguf.is_file():
            raise SystemExit(f"{options.gguf} not found: `make smollm2` fetches it, or name it with --gguf")
        given["model.gguf"] = options.gguf.resolve()
    return given


def chosen(options: argparse.Namespace) -> list[Peer]:
    names = [name for name in options.peers.split(",") if name]
    if unknown := set(names) - {peer.name for peer in PEERS}:
        raise SystemExit(f"unknown peer: {', '.join(sorted(unknown))}")
    return [peer for peer in PEERS if options.case in peer.cases and (not names or peer.name in names)]


def reason_against(peer: Peer, environments: Environments) -> str | None:
    """Why a peer cannot take part, also said to the user."""
    if environments.has(peer):
        return None
    reason = f"{peer.name}: not there ({peer.package} not found by {environments.python(peer.name)})"
    print(reason, file=sys.stderr)
    return reason


def make_report(found: list[Measured], case: Case, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    shape = case.shape.to_dict() if case.shape else case.given["model.gguf"].name
    return {
        "case": case.name,
        "shape": shape,
        "machine": processor(),
        "isa": next((sample["isa"] for m in found for sample in m.machine), None),
        "date": date.today().isoformat(),
        "command": shown_command(options),
        "load_average": os.getloadavg(),
        "threads": task.threads,
        "rounds": options.rounds,
        "first_prompt": task.first_prompt,
        "limits": machine_medians(found) if found else {},
        "failures": {m.peer.name: m.failure for m in found if m.failure},
        "rows": rows_of(found, case, task.first_prompt) if found else [],
    }


def shown_command(options: argparse.Namespace) -> str:
    """The command without what is only where files lie on this machine."""
    skip = {"--python", "--path", "--cache", "--output", "--package", "--gguf"}
    words, kept = iter(sys.argv[1:]), ["python bench/peers.py"]
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in skip:
            kept.append(word)
        elif not equals:
            next(words, None)
    return " ".join(kept)


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else f"{os.cpu_count()} cores"


def save(path: Path, report: dict[str, Any]) -> None:
    """Put the case into the file. Cases measured before are kept."""
    saved = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    saved[report["case"]] = report
    path.write_text(json.dumps(saved, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
