"""Runs one plan and says what it took: the inner process of `bench/plan.py`.

Enters: a task in JSON. Leaves: a report in JSON, of the second of two conversations that fill the context,
and the peak of the process. What a command of `pocketglm` imports is imported, and nothing else.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from pocketglm.cli import main as _  # noqa: F401 - it counts
from pocketglm.generate.bench import bench_prompts, peak_rss_bytes
from pocketglm.generate.memory_budget import anonymous_bytes
from pocketglm.generate.model import Model, load
from pocketglm.plan.placement import Placement

NEW_TOKENS = 12


def run(task: Mapping[str, Any]) -> dict[str, float]:
    """Fill the context but for some tokens, then decode these; twice."""
    placement = Placement.from_dict(task["placement"])
    began = time.perf_counter()
    with load(task["package"], placement=placement, threads=task["threads"], lookup=0) as model:
        load_s = time.perf_counter() - began
        (prompt,) = bench_prompts(model, model.context - NEW_TOKENS, 1)
        for _ in range(2):
            prefill_s, steps = converse(model, prompt)
        return {
            "load_s": load_s,
            "prefill_tps": len(prompt) / prefill_s,
            "decode_tps": 1 / statistics.median(steps),
            "peak_bytes": peak_rss_bytes(),
            "anonymous_bytes": anonymous_bytes(),
        }


def converse(model: Model, prompt: list[int]) -> tuple[float, list[float]]:
    """Seconds of the prompt, and of each token of the answer."""
    with model.session() as session:
        began = time.perf_counter()
        token = int(session.forward(prompt, last_only=True)[-1].argmax())
        prefill_s, steps = time.perf_counter() - began, []
        for _ in range(NEW_TOKENS):
            began = time.perf_counter()
            token = int(session.forward([token], last_only=True)[-1].argmax())
            steps.append(time.perf_counter() - began)
    return prefill_s, steps


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
