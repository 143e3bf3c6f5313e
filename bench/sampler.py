"""Time of choosing one token: the C++ sampler beside its NumPy reference.

    python bench/sampler.py [--vocab 130528]

Prints microseconds a token (median of 5 rounds) and a last JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from pocketglm.generate.sampler import Sampler, SamplingSettings

CASES = {
    "greedy": {},
    "greedy, penalties": {"repetition_penalty": 1.1, "frequency_penalty": 0.2},
    "temperature": {"temperature": 1.0},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p 0.7": {"temperature": 0.95, "top_p": 0.7},
    "top-k, top-p, min-p": {"temperature": 0.8, "top_k": 50, "top_p": 0.8, "min_p": 0.05},
}
ROUNDS, TOKENS = 5, 40


def microseconds(sampler: Sampler, rows: np.ndarray) -> float:
    """Time of one token, median of the rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for step in range(TOKENS):
            sampler.next(rows[step % len(rows)])
        times.append((time.perf_counter() - began) / TOKENS)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=130_528, help="ChatGLM-6B's by default")
    vocab = parser.parse_args().vocab
    rows = (np.random.default_rng(0).standard_normal((4, vocab)) * 3).astype(np.float32)
    result = {}
    print(f"{'microseconds a token':24}{'C++':>9}{'NumPy':>9}")
    for name, case in CASES.items():
        settings = SamplingSettings(**case, seed=0)
        found = {
            kind: microseconds(
                Sampler(settings, vocab, range(min(vocab, 500)), native=kind == "native"), rows
            )
            for kind in ("native", "numpy")
        }
        result[name] = {kind: round(value, 1) for kind, value in found.items()}
        print(f"{name:24}{found['native']:9.0f}{found['numpy']:9.0f}")
    print(json.dumps({"vocab": vocab, "microseconds": result}))


if __name__ == "__main__":
    main()
