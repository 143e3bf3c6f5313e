"""One decoder block, and the head, as PyTorch modules without weights, for tracing to ONNX.

Enters: a `ModelSpec`. Leaves: modules whose linear layers and norms are placeholders (ONNX operators
`PocketGLM::Linear` and `PocketGLM::Norm`, which carry the canonical tensor's name), so that a block of
any size is traced without a weight in memory. `external_weights.py` turns them into MNN layers that
read the package's own files. Inputs and outputs are described in `engine/mnn/interface.py`; the
arithmetic is that of `engine/reference/block.py`.

This module needs torch at import; import it inside the function that traces.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pocketglm.architecture.spec import ModelSpec

DOMAIN = "PocketGLM"


class PlaceholderLinear(torch.autograd.Function):
    """[..., inputs] -> [..., outputs] by the linear layer called `name`."""

    @staticmethod
    def symbolic(graph: Any, x: Any, name: str, inputs: int, outputs: int) -> Any:
        result = graph.op(f"{DOMAIN}::Linear", x, name_s=name, inputs_i=inputs, outputs_i=outputs)
        return result.setType(x.type().with_sizes([None, None, outputs]))

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, inputs: int, outputs: int) -> Tensor:
        return x.new_zeros(*x.shape[:-1], outputs)


class PlaceholderNorm(torch.autograd.Function):
    """A norm over the last axis with the vectors called `name`; `rms` (0 or 1) tells its kind."""

    @staticmethod
    def symbolic(graph: Any, x: Any, name: str, rms: int) -> Any:
        return graph.op(f"{DOMAIN}::Norm", x, name_s=name, rms_i=rms).setType(x.type())

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, rms: int) -> Tensor:
        return x.clone()


def linear(x: Tensor, name: str, inputs: int, outputs: int) -> Tensor:
    result: Tensor = PlaceholderLinear.apply(x, name, inputs, outputs)  # type: ignore[no-untyped-call]
    return result


def norm(spec: ModelSpec, x: Tensor, name: str) -> Tensor:
    """The spec's norm of hidden states."""
    result: Tensor = PlaceholderNorm.apply(x, name, int(spec.norm == "rmsnorm"))  # type: ignore[no-untyped-call]
    return result


def head_norm(x: Tensor, name: str) -> Tensor:
    """The RMS norm of each head of q or k, whatever the spec's norm is."""
    result: Tensor = PlaceholderNorm.apply(x, name, 1)  # type: ignore[no-untyped-call]
    return result


class DecoderBlock(nn.Module):
    """hidden, mask, rotation, past -> output, present."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Tensor, mask: Tensor, rotation: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        normed = norm(self.spec, hidden, "input_norm")
        change, present = self._attention(normed, mask, rotation, past)
        hidden = self._residual(hidden, normed, change, "attention_post_norm")
        normed = norm(self.spec, hidden, "mlp_norm")
        return self._residual(hidden, normed, self.mlp(normed), "mlp_post_norm"), present

    def _residual(self, hidden: Tensor, normed: Tensor, change: Tensor, post_norm: str) -> Tensor:
        """The three forms stand in `ModelSpec`."""
        if self.spec.residual == "normed_alpha":
            return normed * self.spec.residual_alpha + change
        if self.spec.residual == "sandwich":
            change = norm(self.spec, change, post_norm)
        return hidden + change

    def _attention(self, x: Tensor, mask: Tensor, rotation: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over the past and the new columns, which are never copied together."""
        spec = self.spec
        queries, keys, values = self.heads(x)
        queries, keys = (rotate(spec, part, rotation) for part in (queries, keys))
        keys, values = (part.squeeze(1).permute(1, 0, 2) for part in (keys, values))  # [kv_heads, rows, dim]
        group = spec.num_heads // spec.num_kv_heads
        # Query heads that read the same KV head share one matrix: [kv_heads, group * rows, head_dim]
        grouped = (queries * (1 / math.sqrt(spec.head_dim))).reshape(
            -1, spec.num_kv_heads, group, spec.head_dim
        )
        grouped = grouped.permute(1, 2, 0, 3).reshape(spec.num_kv_heads, -1, spec.head_dim)
        scores = torch.cat([grouped @ past[0].transpose(1, 2), grouped @ keys.transpose(1, 2)], -1)
        columns = mask.shape[-1]
        if group > 1:
            by_head = scores.reshape(spec.num_kv_heads, group, -1, columns) + mask
            scores = by_head.reshape(spec.num_kv_heads, -1, columns)
        else:
            scores = scores + mask[0]
        weights = torch.softmax(scores, -1)
        history = past.shape[2]
        mixed = weights[..., :history] @ past[1] + weights[..., history:] @ values
        mixed = mixed.reshape(spec.num_kv_heads, group, -1, spec.head_dim).permute(2, 0, 1, 3)
        output = linear(mixed.reshape(-1, 1, spec.q_size), "attention.output", spec.q_size, spec.hidden_size)
        return output, torch.stack([keys, values], 0)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [rows, 1, heads, head_dim], keys and values [rows, 1, kv_heads, head_dim], not rotated."""
        spec = self.spec
        kv_start, values_start = spec.q_size, spec.q_size + spec.kv_size
        qkv = linear(x, "attention.qkv", spec.hidden_size, spec.q_size + 2 * spec.kv_size)
        queries = qkv[..., :kv_start].reshape(-1, 1, spec.num_heads, spec.head_dim)
        keys = qkv[..., kv_start:values_start].reshape(-1, 1, spec.num_kv_heads, spec.head_dim)
        values = qkv[..., values_start:].reshape(-1, 1, spec.num_kv_heads, spec.head_dim)
        if spec.qk_norm:
            queries = head_norm(queries, "attention.q_norm")
            keys = head_norm(keys, "attention.k_norm")
        return queries, keys, values

    def mlp(self, x: Tensor) -> Tensor:
        spec, inner = self.spec, self.spec.intermediate_size
        if spec.gated:
            gate_up = linear(x, "mlp.gate_up", spec.hidden_size, 2 * inner)
            gate, up = gate_up[..., :inner], gate_up[..., inner:]
            activated = gate * torch.sigmoid(gate) * up
        else:
            up = linear(x, "mlp.up", spec.hidden_size, inner)
            activated = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up * up * up)))
        return linear(activated, "mlp.down", inner, spec.hidden_size)


class DecoderHead(nn.Module):
    """hidden -> logits."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Tensor) -> Tensor:
        return linear(norm(self.spec, hidden, "norm"), "head", self.spec.hidden_size, self.spec.vocab_size)


def rotate(spec: ModelSpec, heads: Tensor, rotation: Tensor) -> Tensor:
    """Turn heads [rows, 1, heads, head_dim] by rotation [2, axes, rows, pairs]; see `RotarySpec`."""
    rotary = spec.rotary
    size = rotary.dimensions // rotary.axes
    parts = []
    for axis in range(rotary.axes):
        part = heads[..., axis * size : (axis + 1) * size]
        cosine, sine = (rotation[i, axis].unsqueeze(1).unsqueeze(1) for i in (0, 1))  # [rows, 1, 1, pairs]
        if rotary.kind == "half":
            first, second = part[..., : size // 2], part[..., size // 2 :]
            parts += [first * cosine - second * sine, second * cosine + first * sine]
        else:
            pairs = part.reshape(*part.shape[:-1], size // 2, 2)
            first, second = pairs[..., 0], pairs[..., 1]
            turned = [first * cosine - second * sine, second * cosine + first * sine]
            parts.append(torch.stack(turned, -1).flatten(-2))
    if rotary.dimensions < spec.head_dim:
        parts.append(heads[..., rotary.dimensions :])
    return torch.cat(parts, -1)
