"""Weights of a package file as float32: held in memory, or dequantized anew at each use.

Enters: a package's weight file. Leaves: the `linear` and `vector` callables that `block.py`
computes with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pocketglm.engine.contract import Float32
from pocketglm.package.reader import Package, StoredLinear, WeightFile

BYTES_AT_ONCE = 8 << 20
"""float32 weights dequantized at a time where they stream: small enough to stay in a CPU's cache."""

FEW_ROWS = 64
"""Up to here W x^T beats x W^T in OpenBLAS, by 1.3 times for 2 to 16 rows: it packs x, not the weights."""


WeightSource = Callable[[], "FileWeights"]
"""Gives the weights of one file for one use; whoever asked drops them afterwards."""


def load_weights(package: Package, open_file: Callable[[], WeightFile], resident: bool) -> WeightSource:
    """Weights made float32 now and kept, or (not `resident`) mapped anew at each use.

    `open_file` is `package.head`, or `package.block` with its index. The package forgets the file, so
    that its pages leave memory as soon as nothing computes with them.
    """

    def open_once() -> FileWeights:
        file = open_file()
        package.forget(file.path.name)
        return FileWeights(file, resident)

    if not resident:
        return open_once
    weights = open_once()
    return lambda: weights


class FileWeights:
    """One weight file, ready to compute with."""

    def __init__(self, file: WeightFile, resident: bool) -> None:
        self._linears = {name: _prepare(file.linear(name), resident) for name in file.linears}
        self._vectors = {name: np.array(file.vector(name), dtype=np.float32) for name in file.vectors}

    def linear(self, name: str, x: Float32) -> Float32:
        """x [rows, in] -> x W^T + bias [rows, out]."""
        return self._linears[name].apply(x)

    def vector(self, name: str) -> Float32:
        return self._vectors[name]


class _Linear(Protocol):
    def apply(self, x: Float32) -> Float32: ...


class _Resident:
    """A float32 matrix [out, in], in memory or mapped."""

    def __init__(self, weight: Float32, bias: Float32 | None) -> None:
        self._weight = weight
        self._bias = None if bias is None else bias.astype(np.float32)  # a copy: the file can be unmapped

    def apply(self, x: Float32) -> Float32:
        output = _multiply(x, self._weight)
        if self._bias is not None:
            output += self._bias
        return output


class _Streamed:
    """A stored matrix of which a few rows at a time are dequantized."""

    def __init__(self, stored: StoredLinear) -> None:
        self._stored = stored

    def apply(self, x: Float32) -> Float32:
        rows, inputs = self._stored.shape
        step = max(1, BYTES_AT_ONCE // (4 * inputs))
        output = np.empty((x.shape[0], rows), dtype=np.float32)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            output[:, start : start + count] = _multiply(x, self._stored.dequantize(start, count))
        if self._stored.bias is not None:
            output += self._stored.bias
        return output


def _multiply(x: Float32, weight: Float32) -> Float32:
    """x [rows, in], weight [out, in] -> x W^T [rows, out], in C order."""
    if x.shape[0] > FEW_ROWS:
        return x @ weight.T
    return np.ascontiguousarray((weight @ x.T).T)


def _prepare(stored: StoredLinear, resident: bool) -> _Linear:
    if stored.format.bits == 32:  # mapped pages serve as they are; the system drops them as it needs
        return _Resident(stored.codes, stored.bias)
    return _Resident(_dequantized(stored), stored.bias) if resident else _Streamed(stored)


def _dequantized(stored: StoredLinear) -> Float32:
    """The whole matrix, filled in steps so that only one extra piece is ever held."""
    rows, inputs = stored.shape
    step = max(1, BYTES_AT_ONCE // (4 * inputs))
    weight = np.empty((rows, inputs), dtype=np.float32)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        weight[start : start + count] = stored.dequantize(start, count)
    return weight
