"""What an `llm.mnn` says about its weights: an untrusted FlatBuffers file, read without MNN.

Enters: the bytes of the graph. Leaves: its linear layers, norms, rotary settings and float constants, with
their places in the weight file. Only the fields that matter here are looked at; every offset is checked
before it is followed. Source of the numbers: MNN 3.6, `schema/default/*.fbs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import CheckpointError, UnsupportedModelError

MAX_GRAPH_BYTES = 64 << 20
"""Graphs keep their weights elsewhere: the largest known one has a few megabytes."""

BLOB, CONVOLUTION, LAYER_NORM, ROTARY = 7, 9, 88, 102
"""Members of the union of an operator's settings."""

FLOAT = 1
"""The data type of a float constant."""


@dataclass(frozen=True)
class LinearPlace:
    """A linear layer [outputs, stored inputs]. `sizes` are the bytes of header and codes, scales, bias."""

    name: str
    outputs: int
    inputs: int
    offset: int
    sizes: tuple[int, int, int]
    bits: int  # 32, 16, 8 or 4
    symmetric: bool
    wide_scales: bool  # float32, not float16


@dataclass(frozen=True)
class NormPlace:
    """A norm's weight and bias (0 bytes where there is none), in the weight file or `inside` the graph."""

    name: str
    epsilon: float
    offset: int
    sizes: tuple[int, int]
    inside: bool


@dataclass(frozen=True)
class RotaryPlace:
    """MNN's fused rotary operator: its heads, and the norms of q and k if it has them."""

    name: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dimensions: int
    norms: tuple[NormPlace, ...]


@dataclass
class Graph:
    """The parts of a graph, in its order."""

    maker: str
    linears: list[LinearPlace] = field(default_factory=list)
    norms: list[NormPlace] = field(default_factory=list)
    rotaries: list[RotaryPlace] = field(default_factory=list)
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def read_graph(path: Path) -> Graph:
    """Parse `llm.mnn`. Raises `CheckpointError` for damage, `UnsupportedModelError` for other encodings."""
    size = path.stat().st_size
    if not 8 <= size <= MAX_GRAPH_BYTES:
        raise CheckpointError(f"is {size} bytes, expected 8 to {MAX_GRAPH_BYTES} for a graph", where=path)
    data = path.read_bytes()
    try:
        root = _Table(data, struct.unpack_from("<I", data)[0])
        graph = Graph(root.text(0))
        for op in root.tables(3):
            _read_operator(op, graph)
    except (struct.error, IndexError, ValueError, RecursionError) as error:
        raise CheckpointError(f"is not an MNN graph, or damaged ({error})", where=path) from None
    if not graph.linears:
        raise CheckpointError("is not an MNN graph of a language model: it has no linear layer", where=path)
    return graph


def _read_operator(op: _Table, graph: Graph) -> None:
    kind, main, name = op.number(1, "<B"), op.table(2), op.text(3)
    if main is None:
        return
    if kind == CONVOLUTION:
        graph.linears.append(_linear(name, main))
    elif kind == LAYER_NORM:
        graph.norms.append(_norm(name, main))
    elif kind == ROTARY:
        norms = [table for table in (main.table(4), main.table(5)) if table is not None]
        head_dim = main.number(3)
        graph.rotaries.append(
            RotaryPlace(
                name,
                main.number(1),
                main.number(2),
                head_dim,
                main.number(0) or head_dim,
                tuple(_norm(name, table) for table in norms),
            )
        )
    elif kind == BLOB and main.number(2, default=FLOAT) == FLOAT:
        graph.constants[name] = main.array(7, "<f4")


def _linear(name: str, main: _Table) -> LinearPlace:
    common, coding = main.table(0), main.table(3)
    external = main.array(6, "<i8").tolist()
    kernel = {common.number(i, default=1) for i in (2, 3, 9)} if common is not None else set()
    if common is None or kernel != {1} or len(external) < 3:
        raise UnsupportedModelError(
            f"{name} is not a linear layer with external weights, which is all that can be read exactly"
        )
    outputs, inputs = common.number(10), common.number(11)
    if coding is None:  # float32: weight and bias
        sizes = (external[1], 0, external[2])
        return LinearPlace(name, outputs, inputs, external[0], sizes, 32, False, False)
    sizes = (external[1], external[2], external[3] if len(external) > 3 else 0)
    kind, bits, rows = coding.number(2), coding.number(7), coding.number(9)
    if kind == 3:
        return LinearPlace(name, outputs, inputs, external[0], sizes, 16, False, False)
    sparse = len(external) > 4 and external[4] != 0
    if kind != 1 or bits not in (4, 8) or coding.number(10, "<B") or sparse:
        raise UnsupportedModelError(
            f"{name} has the weight encoding {kind} with {bits} bits, expected plain int4 or int8"
        )
    if rows and coding.number(8) != 1:
        raise UnsupportedModelError(f"{name} has zeros in an encoding of its own (aMin {coding.number(8)})")
    wide = coding.number(15, "<B") == 0
    return LinearPlace(name, outputs, inputs, external[0], sizes, bits, rows == 0, wide)


def _norm(name: str, main: _Table) -> NormPlace:
    external = main.array(5, "<i8").tolist()
    epsilon = main.number(1, "<f")
    if len(external) >= 2:
        sizes = (external[1], external[2] if len(external) > 2 else 0)
        return NormPlace(name, epsilon, external[0], sizes, False)
    offset, count = main.vector(2)
    return NormPlace(name, epsilon, offset, (4 * count, 0), True)


class _Table:
    """A FlatBuffers table. Fields are numbered as in the schema; absent ones have their default."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - _unpack(data, "<i", position)
        self._count = (_unpack(data, "<H", self._fields) - 4) // 2

    def number(self, index: int, kind: str = "<i", default: float = 0) -> int:
        """A scalar. Floats are asked for with kind `<f`."""
        at = self._at(index)
        return _unpack(self._data, kind, at) if at else default  # type: ignore[return-value]

    def text(self, index: int) -> str:
        return bytes(self.array(index, "<u1")).decode("utf-8", "replace")

    def table(self, index: int) -> _Table | None:
        at = self._at(index)
        return _Table(self._data, at + _unpack(self._data, "<I", at)) if at else None

    def tables(self, index: int) -> Iterator[_Table]:
        at = self._at(index)
        start = at + _unpack(self._data, "<I", at) if at else 0
        for number in range(_unpack(self._data, "<I", start) if at else 0):
            item = start + 4 + 4 * number
            yield _Table(self._data, item + _unpack(self._data, "<I", item))

    def array(self, index: int, dtype: str) -> NDArray[Any]:
        """A vector of scalars; empty where it is absent."""
        start, count = self.vector(index)
        return np.frombuffer(self._data, dtype, count, start) if count else np.empty(0, dtype)

    def vector(self, index: int) -> tuple[int, int]:
        """Where the elements of a vector start in the file, and how many there are."""
        at = self._at(index)
        if not at:
            return 0, 0
        start = at + _unpack(self._data, "<I", at)
        return start + 4, _unpack(self._data, "<I", start)

    def _at(self, index: int) -> int:
        """Where a field lies, 0 if it is absent."""
        if index >= self._count:
            return 0
        offset = _unpack(self._data, "<H", self._fields + 4 + 2 * index)
        return self._position + offset if offset else 0


def _unpack(data: bytes, kind: str, position: int) -> int:
    if position < 0:  # struct would count from the end
        raise ValueError(f"an offset points to {position}")
    value: int = struct.unpack_from(kind, data, position)[0]
    return value
