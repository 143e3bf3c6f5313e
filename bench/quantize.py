"""Speed and error of the quantize kernels: `python bench/quantize.py [--weights FILE.safetensors]`.

Speed is the median of several runs on 4 million Gaussian weights in rows of 4096, in processor time of
the thread (so that other work on the machine disturbs little), and in wall time for two threads. Error
is the relative error (root of squared error over squared norm) of round-to-nearest and of the search.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.quantize import native
from pocketglm.quantize.error import ErrorFigures
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import dequantize_rows, quantize_rows

Float32 = NDArray[np.float32]
ROWS, INPUTS = 1024, 4096
FORMATS = {
    "int4 g64 search": WeightFormat(4, 64),
    "int4 g64 nearest": WeightFormat(4, 64, search=False),
    "int4 g64 symmetric search": WeightFormat(4, 64, symmetric=True),
    "int8 g64 search": WeightFormat(8, 64),
    "int8 g64 nearest": WeightFormat(8, 64, search=False),
}


def median_seconds(call: Callable[[], object], clock: Callable[[], float], runs: int) -> float:
    """Median duration of `call`, after one run that warms up."""
    call()
    durations = []
    for _ in range(runs):
        start = clock()
        call()
        durations.append(clock() - start)
    return statistics.median(durations)


def kernel_speed(weights: Float32, fmt: WeightFormat, isa: str, runs: int) -> dict[str, float]:
    """Million weights quantized, and GB of float32 dequantized, per second of one core."""
    group = fmt.group_size(INPUTS)
    codes = np.empty((ROWS, fmt.code_bytes(INPUTS)), np.uint8)
    alpha = np.empty((ROWS, fmt.groups(INPUTS), 1 if fmt.symmetric else 2), np.float16)
    out = np.empty_like(weights)
    quantize = median_seconds(
        lambda: native.quantize(weights, None, fmt.bits, group, fmt.symmetric, fmt.search, codes, alpha, isa),
        time.thread_time,
        runs,
    )
    dequantize = median_seconds(
        lambda: native.dequantize(codes, alpha, fmt.bits, group, out, isa), time.thread_time, runs
    )
    return {
        "quantize_million_per_s": weights.size / quantize / 1e6,
        "dequantize_gb_per_s": weights.nbytes / dequantize / 1e9,
    }


def two_thread_speed(weights: Float32, fmt: WeightFormat, runs: int) -> float:
    """Million weights per second of wall time with two calls at once, as the converter makes them."""
    halves = weights[: ROWS // 2], weights[ROWS // 2 :]
    with ThreadPoolExecutor(2) as pool:
        seconds = median_seconds(
            lambda: list(pool.map(lambda half: quantize_rows(half, fmt), halves)), time.perf_counter, runs
        )
    return weights.size / seconds / 1e6


def relative_error(weights: Float32, fmt: WeightFormat) -> float:
    figures = ErrorFigures()
    stored = dequantize_rows(quantize_rows(weights, fmt), fmt, weights.shape[1])
    figures.add(weights, stored)
    return figures.relative


def error_sources(path: Path | None) -> dict[str, list[Float32]]:
    """Matrices by name: three distributions, and the matrices of `path`."""
    random = np.random.default_rng(0)
    shape = (256, 4096)
    sources = {
        "gaussian": [random.standard_normal(shape).astype(np.float32)],
        "laplace": [random.laplace(size=shape).astype(np.float32)],
        "student t5": [random.standard_t(5, size=shape).astype(np.float32)],
    }
    if path is not None:
        from safetensors.numpy import load_file

        tensors = load_file(path).values()
        sources[path.parent.name] = [tensor.astype(np.float32) for tensor in tensors if tensor.ndim == 2]
    return sources


def mean_error(matrices: list[Float32], fmt: WeightFormat) -> float:
    """Relative error, averaged over the weights of all matrices."""
    sizes = [matrix.size for matrix in matrices]
    return float(np.average([relative_error(matrix, fmt) for matrix in matrices], weights=sizes))


def measure(path: Path | None, runs: int) -> dict[str, Any]:
    weights = np.random.default_rng(0).standard_normal((ROWS, INPUTS)).astype(np.float32)
    return {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "speed": {
            isa: {name: kernel_speed(weights, fmt, isa, runs) for name, fmt in FORMATS.items()}
            for isa in native.isa_names()
        },
        "two_threads_million_per_s": {
            name: two_thread_speed(weights, fmt, runs) for name, fmt in FORMATS.items()
        },
        "relative_error": {
            source: {name: mean_error(matrices, fmt) for name, fmt in FORMATS.items()}
            for source, matrices in error_sources(path).items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", type=Path, help="safetensors file whose matrices are measured too")
    parser.add_argument("--runs", type=int, default=5, help="runs that each median is of (default 5)")
    arguments = parser.parse_args()
    json.dump(measure(arguments.weights, arguments.runs), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
