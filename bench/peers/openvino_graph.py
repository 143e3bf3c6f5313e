"""A Llama model as an OpenVINO graph, as Optimum exports it: stateful, with compressed weights.

Enters: a shape and a kind of compression. Leaves: `openvino_model.xml` and `.bin`. Weights are u4 or i4
constants followed by convert, subtract (u4), multiply and reshape, the pattern that the CPU plugin keeps
compressed; the cache is a pair of variables for each block, gathered by `beam_idx` so that the plugin
fuses them with the attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op
from numpy.typing import NDArray

from peers.shape import NORM_EPS, ROPE_BASE, Shape
from peers.weights import GROUP, Pattern, embedding, pattern, tiled

Node = Any


@dataclass(frozen=True)
class Compression:
    """`symmetric`: i4 codes; else u4 with a zero point for each group."""

    symmetric: bool
    group: int = GROUP


def write_openvino(path: Path, shape: Shape, compression: Compression) -> Path:
    """Write the graph and its weights into the new folder `path`."""
    path.mkdir(parents=True)
    graph = _Graph(shape, compression)
    ov.save_model(graph.model(), path / "openvino_model.xml", compress_to_fp16=False)
    return path


class _Graph:
    def __init__(self, shape: Shape, compression: Compression) -> None:
        self.shape, self.compression = shape, compression
        self.ids = op.parameter([-1, -1], np.int64, name="input_ids")
        self.mask = op.parameter([-1, -1], np.int64, name="attention_mask")
        self.positions = op.parameter([-1, -1], np.int64, name="position_ids")
        self.beams = op.parameter([-1], np.int32, name="beam_idx")
        for node in (self.ids, self.mask, self.positions, self.beams):
            node.output(0).get_tensor().set_names({node.get_friendly_name()})
        self.sinks: list[Node] = []
        self.kept: list[NDArray[np.uint8]] = []  # constants share the memory of these arrays

    def model(self) -> ov.Model:
        shape = self.shape
        table = np.concatenate(list(embedding(shape.vocabulary, shape.hidden))).astype(np.float16)
        rows = op.convert(op.constant(table), np.float32)
        hidden = op.gather(rows, op.convert(self.ids, np.int32), op.constant(np.int32(0)))
        self.cos, self.sin = self._rotation()
        for index in range(shape.blocks):
            hidden = self._block(index, hidden)
        logits = self._linear("head", shape.vocabulary, shape.hidden, self._last(self._norm(hidden)))
        result = op.result(logits)
        result.output(0).get_tensor().set_names({"logits"})
        inputs = [self.ids, self.mask, self.positions, self.beams]
        return ov.Model([result], self.sinks, inputs, "llama")

    def _block(self, index: int, hidden: Node) -> Node:
        shape, stem = self.shape, f"block_{index:02d}."
        sizes = shape.block_matrices()

        def linear(name: str, x: Node) -> Node:
            return self._linear(stem + name, *sizes[name], x)

        x = self._norm(hidden)
        query, key, value = (self._heads(linear(name, x)) for name in "qkv")
        key = self._cached(f"past_key_values.{index}.key", self._rotated(key))
        value = self._cached(f"past_key_values.{index}.value", value)
        mixed = op.scaled_dot_product_attention(
            self._rotated(query), self._all_heads(key), self._all_heads(value), causal=True
        )
        rows = op.reshape(_transposed(mixed), op.constant(np.array([0, 0, shape.hidden])), special_zero=True)
        hidden = op.add(hidden, linear("o", rows))
        x = self._norm(hidden)
        return op.add(hidden, linear("down", op.multiply(op.swish(linear("gate", x)), linear("up", x))))

    def _linear(self, name: str, rows: int, inputs: int, x: Node) -> Node:
        weight = self._weight(pattern(name, rows, inputs))
        return op.matmul(x, weight, transpose_a=False, transpose_b=True)

    def _weight(self, part: Pattern) -> Node:
        codes, scales = compressed(part, self.compression.group)
        inputs = part.codes.shape[1]
        grouped = [part.rows, inputs // self.compression.group, self.compression.group]
        kind = ov.Type.i4 if self.compression.symmetric else ov.Type.u4
        stored = codes ^ 8 if self.compression.symmetric else codes  # code - 8 in two's complement
        packed = tiled(stored[:, ::2] | (stored[:, 1::2] << 4), part.rows)
        weight = op.convert(self._nibbles(packed, grouped, kind), np.float16)
        if not self.compression.symmetric:
            eights = np.full(grouped[0] * grouped[1] // 2, 0x88, np.uint8)
            zeros = self._nibbles(eights, [*grouped[:2], 1], ov.Type.u4)
            weight = op.subtract(weight, op.convert(zeros, np.float16))
        weight = op.multiply(weight, op.constant(tiled(scales, part.rows)[:, :, None]))
        shape = op.constant(np.array([part.rows, inputs]))
        return op.convert(op.reshape(weight, shape, special_zero=False), np.float32)

    def _nibbles(self, packed: NDArray[np.uint8], shape: list[int], kind: Any) -> Node:
        self.kept.append(packed)
        return ov.op.Constant(ov.Tensor(packed, ov.Shape(shape), kind))

    def _norm(self, x: Node) -> Node:
        square = op.power(x, op.constant(np.float32(2)))
        mean = op.reduce_mean(square, op.constant(np.array([-1])), keep_dims=True)
        root = op.sqrt(op.add(mean, op.constant(np.float32(NORM_EPS))))
        scaled = op.multiply(x, op.divide(op.constant(np.float32(1)), root))
        return op.multiply(op.constant(np.ones((1, 1, self.shape.hidden), np.float32)), scaled)

    def _heads(self, x: Node) -> Node:
        """[batch, rows, heads * size] -> [batch, heads, rows, size]."""
        size = op.constant(np.array([0, 0, -1, self.shape.head_dim]))
        return _transposed(op.reshape(x, size, special_zero=True))

    def _rotation(self) -> tuple[Node, Node]:
        size = self.shape.head_dim
        frequency = ROPE_BASE ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        row = op.constant(frequency.astype(np.float32)[None, :, None])
        place = op.convert(op.unsqueeze(self.positions, op.constant(np.array(1))), np.float32)
        angles = _turned(op.matmul(row, place, transpose_a=False, transpose_b=False), [0, 2, 1])
        both = op.unsqueeze(op.concat([angles, angles], axis=2), op.constant(np.array(1)))
        return op.cos(both), op.sin(both)

    def _rotated(self, x: Node) -> Node:
        half = self.shape.head_dim // 2
        axis, step = op.constant(np.array([3])), op.constant(np.array([1]))
        ends = [op.constant(np.array([end])) for end in (0, half, 2 * half)]
        first = op.slice(x, ends[0], ends[1], step, axis)
        second = op.slice(x, ends[1], ends[2], step, axis)
        swapped = op.concat([op.multiply(second, op.constant(np.float32(-1))), first], axis=-1)
        return op.add(op.multiply(x, self.cos), op.multiply(swapped, self.sin))

    def _cached(self, name: str, new: Node) -> Node:
        """The cache with `new` behind it, which is also what the next call finds."""
        shape = self.shape
        info = ov.op.util.VariableInfo()
        info.data_shape = ov.PartialShape([-1, shape.kv_heads, -1, shape.head_dim])
        info.data_type, info.variable_id = ov.Type.f32, name
        variable = ov.op.util.Variable(info)
        batch = op.gather(op.shape_of(self.ids), op.constant(np.array([0])), op.constant(np.array(0)))
        rest = op.constant(np.array([shape.kv_heads, 0, shape.head_dim]))
        empty = op.broadcast(op.constant(np.float32(0)), op.concat([batch, rest], axis=0))
        past = op.gather(op.read_value(empty, variable), self.beams, op.constant(np.array(0)))
        whole = op.concat([past, new], axis=2)
        self.sinks.append(op.assign(whole, variable))
        return whole

    def _all_heads(self, x: Node) -> Node:
        """KV heads repeated for the query heads that share them."""
        shape = self.shape
        times = shape.heads // shape.kv_heads
        if times == 1:
            return x
        wide = op.unsqueeze(x, op.constant(np.array(2)))
        ones = op.constant(np.array([1, 1, times, 1, 1]))
        many = op.broadcast(wide, ones, broadcast_spec="BIDIRECTIONAL")
        heads = op.constant(np.array([0, shape.heads, -1, shape.head_dim]))
        return op.reshape(many, heads, special_zero=True)

    def _last(self, x: Node) -> Node:
        ends = [op.constant(np.array([end])) for end in (-1, 2**31 - 1, 1, 1)]
        return op.slice(x, *ends)


def compressed(part: Pattern, group: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes and the scales of groups. Wider groups than the source's take the first of its scales."""
    return part.codes, np.ascontiguousarray(part.scales[:, :: group // GROUP])


def _transposed(x: Node) -> Node:
    return _turned(x, [0, 2, 1, 3])


def _turned(x: Node, order: list[int]) -> Node:
    return op.transpose(x, op.constant(np.array(order)))
