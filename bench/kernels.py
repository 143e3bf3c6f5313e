"""Speed of the native engine's matrix kernels: `python bench/kernels.py [--isa NAME] [--rounds N]`.

Decode (few rows) is compared with the memory's read bandwidth, prefill (many rows) with the rate of byte
dot products in registers. Both are measured in the same rounds, in turn with the kernels, so that other
work on the machine disturbs all alike; the figures are medians of the rounds. Shapes are ChatGLM-6B's.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import statistics
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.native import _kernels
from pocketglm.quantize.formats import WeightFormat

SHAPES = {
    "qkv": (12288, 4096),
    "attention.out": (4096, 4096),
    "mlp.up": (16384, 4096),
    "mlp.down": (4096, 16384),
    "head": (130528, 4096),
}
FORMATS = {
    "int4 g64": WeightFormat(4, 64),
    "int4 g32": WeightFormat(4, 32),
    "int4 g128": WeightFormat(4, 128),
    "int8 g64": WeightFormat(8, 64),
    "float16": WeightFormat(16),
}
DECODE_BYTES = 192 << 20  # far more than any cache
DOT_ROUNDS = 1_000_000  # some milliseconds


@dataclass(frozen=True)
class Case:
    shape: str
    format: str
    count: int  # rows of activations
    threads: int


def weights_memory(size: int) -> NDArray[np.uint8]:
    """Memory in huge pages where the system has them, as mapped package files are."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def filled(size: int, block: bytes) -> NDArray[np.uint8]:
    array = weights_memory(size)
    pattern = np.frombuffer(block, np.uint8)
    for start in range(0, size, len(pattern)):
        part = array[start : start + len(pattern)]
        part[:] = pattern[: len(part)]
    return array


def measure(case: Case, isa: str, rounds: int) -> dict[str, object]:
    """Medians of one case, with the machine's limits measured in the same rounds."""
    rows, inputs = SHAPES[case.shape]
    fmt = FORMATS[case.format]
    code_bytes = rows * fmt.code_bytes(inputs)
    alpha_bytes = 2 * rows * fmt.alpha_values(inputs)
    copies = max(1, DECODE_BYTES // code_bytes) if case.count <= 16 else 1
    random = np.random.default_rng(0)
    halves = (random.standard_normal(1 << 19) * 0.01).astype(np.float16).tobytes()
    codes = filled(code_bytes * copies, random.bytes(1 << 20) if fmt.quantized else halves)
    alpha = filled(alpha_bytes * copies, halves) if alpha_bytes else np.empty(0, np.uint8)
    x = random.standard_normal((case.count, inputs)).astype(np.float32)
    out = np.empty((case.count, rows), np.float32)
    group = fmt.group_size(inputs) if fmt.quantized else 0
    shape = (rows, inputs, fmt.bits, group, fmt.symmetric)
    seconds, bandwidth, peak = [], [], []
    for _ in range(rounds + 1):
        bandwidth.append(len(codes) / _kernels.time_read(codes, case.threads, isa) / 1e9)
        seconds.append(_kernels.time_matmul(x, out, codes, alpha, copies, *shape, case.threads, isa) / copies)
        peak.append(_kernels.dot_product_rate(DOT_ROUNDS, case.threads, isa) / 1e9)
    middle = [statistics.median(values[1:]) for values in (seconds, bandwidth, peak)]
    rate = (code_bytes + alpha_bytes) / middle[0] / 1e9
    operations = 2 * rows * inputs * case.count / middle[0] / 1e9
    return {
        **vars(case),
        "isa": isa or _kernels.isa_names()[0],
        "milliseconds": round(1e3 * middle[0], 4),
        "gb_per_s": round(rate, 2),
        "read_gb_per_s": round(middle[1], 2),
        "of_read": round(rate / middle[1], 3),
        "gops": round(operations, 1),
        "peak_gops": round(middle[2], 1),
        "of_peak": round(operations / middle[2], 3),
    }


def print_line(result: dict[str, object]) -> None:
    print(
        "{shape:14s} {format:9s} {count:4d} rows, {threads} threads: {milliseconds:9.3f} ms  "
        "{gb_per_s:6.1f} of {read_gb_per_s:5.1f} GB/s ({of_read:4.0%})  "
        "{gops:6.0f} of {peak_gops:5.0f} GOPS ({of_peak:4.0%})".format(**result),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--isa", default="", help=f"one of {', '.join(_kernels.isa_names())}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="1,4,8,256", help="rows of activations, comma-separated")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of ChatGLM-6B's layers")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}")
    options = parser.parse_args()
    results = []
    for name in options.formats.split(","):
        for shape in options.shapes.split(","):
            if shape == "head" and not FORMATS[name].quantized:
                continue  # more than a gigabyte
            for threads in map(int, options.threads.split(",")):
                for count in map(int, options.rows.split(",")):
                    results.append(measure(Case(shape, name, count, threads), options.isa, options.rounds))
                    print_line(results[-1])
    report = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "command": " ".join(sys.argv),
        "results": results,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
