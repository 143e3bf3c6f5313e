"""Interleaved rounds: A B C A B C ..., each measurement in a fresh process, the machine before each.

Enters: peers, their models, a task. Leaves: for each peer a list of what its children answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.child import MARK
from peers.models import warm
from peers.registry import Environments, Peer, child_line
from peers.task import Task

CHILD_TIMEOUT = 1800.0
SHOWN_BYTES = 600


@dataclass
class Measured:
    """One peer's answers, a round each, and what the machine could do right before them."""

    peer: Peer
    model: Path
    answers: list[dict[str, Any]] = field(default_factory=list)
    machine: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""


def measure(
    models: Sequence[tuple[Peer, Path]], task: Task, rounds: int, environments: Environments
) -> list[Measured]:
    """`rounds` times every peer in turn. A peer that fails once is left out of the later rounds."""
    found = [Measured(peer, model) for peer, model in models]
    for number in range(rounds):
        for measured in found:
            if measured.failure:
                continue
            _once(measured, task, environments)
            state = measured.failure or f"{measured.answers[-1]['first_token_s']:.2f} s to the first token"
            print(f"round {number + 1} of {rounds}: {measured.peer.name}: {state}", file=sys.stderr)
    return found


def _once(measured: Measured, task: Task, environments: Environments) -> None:
    peer = measured.peer
    warm(measured.model)
    own = environments.variables("")
    measured.machine.append(_child(child_line(sys.executable, "machine", str(task.threads)), own))
    asked = replace(task, model=str(measured.model), settings=dict(peer.settings), started=time.monotonic())
    line = child_line(environments.python(peer.name), "child", peer.module, asked.to_json())
    try:
        measured.answers.append(_child(line, environments.variables(peer.name)))
    except RuntimeError as error:
        measured.failure = f"failed: {error}"


def _child(line: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """The last line that carries a result. Raises `RuntimeError` with the end of what was printed."""
    try:
        done = subprocess.run(line, env=variables, capture_output=True, timeout=CHILD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer in {CHILD_TIMEOUT:.0f} s") from None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    results = [text.removeprefix(MARK) for text in lines if text.startswith(MARK)]
    if not results:
        printed = done.stderr.decode("utf-8", "replace").strip()[-SHOWN_BYTES:]
        raise RuntimeError(f"exit code {done.returncode}: {printed}")
    found: dict[str, Any] = json.loads(results[-1])
    return found
