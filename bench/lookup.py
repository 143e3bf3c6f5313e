"""Prompt lookup against one token at a time: `python bench/lookup.py DIR [--lookup 0,3,7,15] [--rounds N]`.

The same prompts with every number of guessed tokens in turn, round after round, so that other work on
the machine disturbs all alike; figures are medians of the rounds. First the time of a pass by its number of
rows, which says what a refused guess costs. The last line is one JSON object. A package without a
tokenizer answers a random prompt, on and on: random weights soon repeat themselves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from pocketglm.generate.bench import bench_prompts
from pocketglm.generate.model import Model, load
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.stream import Generation

ROWS = (1, 2, 3, 4, 5, 8, 16)
TEXT = (
    "The harbour of Lindow lies at the mouth of the river Arne. In winter the fishing boats stay inside the "
    "long stone pier, and the crews mend their nets in the sheds along the quay. The old lighthouse on the "
    "northern cliff was built in 1843 by the engineer Robert Calder, who also planned the railway bridge at "
    "Stenton. Every year in June the town holds a fair with boat races, music and a market for wool and "
    "honey. Visitors come by train from the city, which takes about two hours, or by the small ferry that "
    "crosses the bay twice a day."
)
CODE = (
    "def mean_and_variance(values):\n    count = len(values)\n    if count == 0:\n"
    "        raise ValueError('no values')\n    mean = sum(values) / count\n"
    "    variance = sum((value - mean) ** 2 for value in values) / count\n    return mean, variance"
)
QUESTIONS = {
    "copy-edit": f"Copy the following text exactly, but write 'harbor' instead of 'harbour'.\n\n{TEXT}",
    "code": f"Repeat this Python code and add a docstring to the function.\n\n```python\n{CODE}\n```",
    "summary": f"Summarize this text in two sentences.\n\n{TEXT}",
    "list": "Give me ten tips for learning to play the piano.",
    "story": "Tell me a story about a fox who learns to sail.",
    "facts": "Explain how rain forms.",
}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.7, "top_p": 0.9, "seed": 1, "repetition_penalty": 1.05},
}


def prompts(model: Model) -> dict[str, list[int]]:
    if not model.has_tokenizer:
        return {"random": bench_prompts(model, 64, 1)[0]}
    return {
        name: model.chat_prompt([{"role": "user", "content": question}])
        for name, question in QUESTIONS.items()
    }


def answer(model: Model, prompt: list[int], lookup: int, new_tokens: int, sampling: str) -> Generation:
    settings = SamplingSettings(
        max_new_tokens=new_tokens, ignore_eos=not model.has_tokenizer, **SAMPLINGS[sampling]
    )
    with model.session() as session:
        return model.answer(prompt, settings, session, lookup=lookup).finish()


def time_of_rows(model: Model, prompt: list[int], rounds: int) -> dict[int, float]:
    """Milliseconds of a pass with logits, by its rows."""
    times: dict[int, list[float]] = {rows: [] for rows in ROWS}
    with model.session() as session:
        session.forward(prompt, last_only=True)
        for _ in range(rounds):
            for rows in ROWS:
                began = time.perf_counter()
                session.forward(prompt[:rows])
                times[rows].append(1000 * (time.perf_counter() - began))
                session.truncate(len(prompt))
    return {rows: round(statistics.median(found), 2) for rows, found in times.items()}


def compare(
    model: Model, prompt: list[int], sampling: str, lookups: list[int], new_tokens: int, rounds: int
) -> dict[str, Any]:
    """Speeds of one prompt by the number of guessed tokens; the first number is the measure of others."""
    speeds: dict[int, list[float]] = {lookup: [] for lookup in lookups}
    last: dict[int, Generation] = {}
    for _ in range(rounds):
        for lookup in lookups:
            last[lookup] = answer(model, prompt, lookup, new_tokens, sampling)
            speeds[lookup].append(last[lookup].statistics.decode_tps)
    medians = {lookup: statistics.median(found) for lookup, found in speeds.items()}
    base = last[lookups[0]].tokens
    return {
        str(lookup): {
            "decode_tps": round(medians[lookup], 2),
            "ratio": round(medians[lookup] / medians[lookups[0]], 2),
            "tokens": len(last[lookup].tokens),
            "drafted": last[lookup].statistics.drafted_tokens,
            "accepted": last[lookup].statistics.accepted_tokens,
            "identical": last[lookup].tokens == base,
        }
        for lookup in lookups
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument(
        "--lookup", default="0,3,7,15", help="numbers of guessed tokens, the first is the base"
    )
    parser.add_argument("--new-tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default=None)
    given = parser.parse_args()
    lookups = [int(text) for text in given.lookup.split(",")]
    result: dict[str, Any] = {"package": given.package.name, "answers": {}}
    with load(given.package, given.engine, threads=given.threads) as model:
        asked = prompts(model)
        result["ms_by_rows"] = time_of_rows(model, next(iter(asked.values())), given.rounds)
        print("ms by rows:", result["ms_by_rows"], flush=True)
        for name, prompt in asked.items():
            for sampling in SAMPLINGS:
                found = compare(model, prompt, sampling, lookups, given.new_tokens, given.rounds)
                result["answers"][f"{name} {sampling}"] = found
                for lookup, figures in found.items():
                    same = "identical" if figures["identical"] else "DIFFERENT"
                    counts = f"{figures['accepted']} of {figures['drafted']} accepted"
                    speed = f"{figures['decode_tps']:8.2f} tokens/s  x{figures['ratio']:.2f}"
                    print(f"{name:10} {sampling:8} {lookup:>3} {speed}  {counts:22} {same}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
