"""Converting one weight file: read, quantize, write, and run the probe through, in one pass.

The probe is a stack of hidden states [3, rows, hidden] over the same few tokens:

    path 0  the original weights on the original hidden states
    path 1  the stored weights on the original hidden states (this block's own error)
    path 2  the stored weights on what the stored weights made (the error so far)

Each weight chunk is read once and used for all three, so that the whole model flows by without ever
being in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.architecture.table import TensorRule
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.convert.rows import read_rows, row_chunks
from pocketglm.convert.stored_codes import stored_rows
from pocketglm.errors import InputError
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import WeightLayout
from pocketglm.package.writer import WeightFileWriter
from pocketglm.quantize.error import ErrorFigures
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.quantizer import QuantizerFor, scale_search
from pocketglm.quantize.rows import dequantize_rows

Float32 = NDArray[np.float32]


class WeightConverter:
    """Turns the checkpoint's tensors of one weight file into its bytes, tensor by tensor.

    `linear` and `vector` have the form that `engine.reference.block` asks for its weights in, so
    running a block over them converts it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rules: tuple[TensorRule, ...],
        layout: WeightLayout,
        writer: WeightFileWriter,
        pool: ThreadPoolExecutor,
        on_elements: Callable[[int], None],
        quantizer_for: QuantizerFor = scale_search,
    ) -> None:
        self._checkpoint = checkpoint
        self._rules: Mapping[str, TensorRule] = {rule.name: rule for rule in rules}
        self._layout = layout
        self._writer = writer
        self._pool = pool
        self._on_elements = on_elements
        self._quantizer_for = quantizer_for
        self.errors: dict[str, ErrorFigures] = {}

    def convert_all(self) -> None:
        """Convert every tensor without a probe."""
        for entry in self._layout.entries:
            if isinstance(entry, LinearEntry):
                self._convert_linear(entry.name, None)
            else:
                self.vector(entry.name)

    def vector(self, name: str) -> Float32:
        """Write a norm weight or bias; returns it."""
        values = self._read_vector(name)
        self._writer.write_vector(name, values)
        self._on_elements(values.size)
        return values

    def linear(self, name: str, x: Float32) -> Float32:
        """Convert linear layer `name` and apply it: [3, rows, in] -> [3, rows, out]."""
        y = self._convert_linear(name, x)
        assert y is not None
        return y

    def _convert_linear(self, name: str, x: Float32 | None) -> Float32 | None:
        entry = self._writer.linear_entry(name)
        rule = self._rules[f"{name}.weight"]
        y = None if x is None else np.empty((*x.shape[:-1], entry.shape[0]), np.float32)
        figures = ErrorFigures()
        parts = self._pool.map(lambda c: self._convert_rows(entry, rule, c, x, y), row_chunks(entry.shape))
        for part in parts:  # in order, so that sums do not depend on the threads
            figures.merge(part)
            self._on_elements(part.count)
        self.errors[name] = figures
        if entry.bias:
            bias = self._read_vector(f"{name}.bias")
            self._writer.write_bias(name, bias)
            self._on_elements(bias.size)
            if y is not None:
                y += bias
        return y

    def _convert_rows(
        self,
        entry: LinearEntry,
        rule: TensorRule,
        chunk: tuple[int, int],
        x: Float32 | None,
        y: Float32 | None,
    ) -> ErrorFigures:
        start, count = chunk
        original = read_rows(self._checkpoint, rule, start, count)
        try:
            stored = self._store(entry, rule, start, original)
        except InputError as error:
            raise InputError(
                f"{rule.name}, rows from {start}: {error.message}", where=self._layout.file, hint=error.hint
            ) from None
        if x is not None and y is not None:
            y[0, :, start : start + count] = x[0] @ original.T
            y[1:, :, start : start + count] = x[1:] @ stored.T
        figures = ErrorFigures()
        figures.add(original, stored)
        return figures

    def _store(self, entry: LinearEntry, rule: TensorRule, start: int, original: Float32) -> Float32:
        """Write the rows in the entry's format; returns what an engine will read back.

        Rows that the checkpoint holds in this very format are taken over bit for bit.
        """
        weight_format: WeightFormat = entry.format
        if weight_format.quantized:
            rows = stored_rows(self._checkpoint, rule, start, len(original), weight_format)
            if rows is None:
                rows = self._quantizer_for(entry.name, weight_format).quantize(original)
            self._writer.write_quantized(entry.name, start, rows)
            return dequantize_rows(rows, weight_format, entry.shape[1])
        if weight_format.bits == 32:
            self._writer.write_floats(entry.name, start, original)
            return original
        if not np.isfinite(original).all() or np.abs(original).max(initial=0) > np.finfo(np.float16).max:
            raise InputError("a weight does not fit float16", hint="use --bits 32, or 8")
        halves: NDArray[Any] = original.astype(np.float16)
        self._writer.write_floats(entry.name, start, halves)
        return halves.astype(np.float32)

    def _read_vector(self, name: str) -> Float32:
        values = read_rows(self._checkpoint, self._rules[name])
        if not np.isfinite(values).all():
            raise InputError(f"{name} holds values that are not finite", where=self._layout.file)
        return values
