"""The tensor table: for each canonical tensor of a package, the checkpoint rows it is made of.

Canonical tensors of a block, in the order in which a forward pass uses them (linear layers are
[out, in]; `.bias` is present where the spec says so):

    input_norm.weight [hidden]              input_norm.bias (layernorm)
    attention.qkv.weight [q + 2*kv, hidden] rows: all of q, then k, then v;  attention.qkv.bias
    attention.q_norm.weight, attention.k_norm.weight [head_dim]     (qk_norm)
    attention.output.weight [hidden, q]     attention.output.bias
    attention_post_norm.weight [hidden]     (sandwich)
    mlp_norm.weight [hidden]                mlp_norm.bias (layernorm)
    mlp.gate_up.weight [2*inter, hidden]    (gated: gate rows, then up rows)   mlp.gate_up.bias
    mlp.up.weight [inter, hidden]           (not gated)                        mlp.up.bias
    mlp.down.weight [hidden, inter]         mlp.down.bias
    mlp_post_norm.weight [hidden]           (sandwich)

and of the model: `embedding.weight` [vocab, hidden], and in the head `norm.weight`, `norm.bias`,
`head.weight` [vocab, hidden].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pocketglm.architecture.spec import ModelSpec


@dataclass(frozen=True)
class RowRange:
    """`count` rows (elements, for a vector) of checkpoint tensor `source`, from row `start`."""

    source: str
    start: int
    count: int


@dataclass(frozen=True)
class TensorRule:
    """One canonical tensor: `pieces` stacked along the first axis give `shape`."""

    name: str
    shape: tuple[int, ...]
    pieces: tuple[RowRange, ...]

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    def rows(self, start: int, count: int) -> Iterator[RowRange]:
        """The checkpoint rows that make rows start..start+count of this tensor, in order."""
        end, offset = start + count, 0
        for piece in self.pieces:
            low, high = max(start, offset), min(end, offset + piece.count)
            if low < high:
                yield RowRange(piece.source, piece.start + low - offset, high - low)
            offset += piece.count
            if offset >= end:
                return

    def keep_rows(self, kept: Sequence[int]) -> TensorRule:
        """The same tensor with only the rows `kept`, in that order (vocabulary slimming)."""
        pieces: list[RowRange] = []
        for row in kept:
            (piece,) = self.rows(row, 1)
            last = pieces[-1] if pieces else None
            if last and last.source == piece.source and last.start + last.count == piece.start:
                pieces[-1] = replace(last, count=last.count + 1)
            else:
                pieces.append(piece)
        return TensorRule(self.name, (len(kept), *self.shape[1:]), tuple(pieces))


@dataclass(frozen=True)
class TensorTable:
    """All tensors of a model. `ignored` lists checkpoint tensors that are known and not needed."""

    embedding: TensorRule
    blocks: tuple[tuple[TensorRule, ...], ...]
    head: tuple[TensorRule, ...]
    ignored: frozenset[str] = frozenset()

    def all_rules(self) -> Iterator[TensorRule]:
        yield self.embedding
        for block in self.blocks:
            yield from block
        yield from self.head


def block_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every tensor of one block, in order of use."""
    hidden, inter, layernorm = spec.hidden_size, spec.intermediate_size, spec.norm == "layernorm"
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = (hidden,)
        if layernorm:
            shapes[f"{name}.bias"] = (hidden,)

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    norm("input_norm")
    linear("attention.qkv", spec.q_size + 2 * spec.kv_size, hidden, spec.qkv_bias)
    if spec.qk_norm:
        shapes["attention.q_norm.weight"] = (spec.head_dim,)
        shapes["attention.k_norm.weight"] = (spec.head_dim,)
    linear("attention.output", hidden, spec.q_size, spec.attention_output_bias)
    if spec.residual == "sandwich":
        norm("attention_post_norm")
    norm("mlp_norm")
    if spec.gated:
        linear("mlp.gate_up", 2 * inter, hidden, spec.mlp_bias)
    else:
        linear("mlp.up", inter, hidden, spec.mlp_bias)
    linear("mlp.down", hidden, inter, spec.mlp_bias)
    if spec.residual == "sandwich":
        norm("mlp_post_norm")
    return shapes


def head_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of the tensors in the head file."""
    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (spec.hidden_size,)}
    if spec.norm == "layernorm":
        shapes["norm.bias"] = (spec.hidden_size,)
    shapes["head.weight"] = (spec.vocab_size, spec.hidden_size)
    return shapes
