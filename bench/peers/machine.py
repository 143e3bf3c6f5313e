"""What the machine can do, in a process of its own: read bandwidth, and dot products of bytes a second."""

from __future__ import annotations

import json
import os
import statistics
import sys

from peers.child import MARK, pin
from peers.registry import BENCH
from pocketglm.engine.native import _kernels

READ_BYTES = 512 << 20  # far more than any cache
TIMES = 7


def main() -> None:
    sys.path.insert(0, str(BENCH))
    from kernels import DOT_ROUNDS, filled

    threads = int(sys.argv[1])
    pin(threads)
    memory = filled(READ_BYTES, os.urandom(1 << 20))
    read, dot = [], []
    for _ in range(TIMES):
        read.append(len(memory) / _kernels.time_read(memory, threads))
        dot.append(_kernels.dot_product_rate(DOT_ROUNDS, threads))
    answer = {"read": statistics.median(read), "dot": statistics.median(dot)}
    print(MARK + json.dumps({**answer, "isa": _kernels.isa_names()[0]}))
