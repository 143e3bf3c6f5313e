"""The operations in plain PyTorch, float32: what runs without Triton, and what its kernels are held to.

Enters: tensors on any device. Leaves: tensors on the same. Quantized weights are dequantized a tile of
rows at a time, so that only the tile's float32 form is ever held.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pocketglm.architecture.spec import ModelSpec, RotarySpec
from pocketglm.engine.reference.attention import Visibility
from pocketglm.engine.torch.weights import DeviceLinear, DeviceNorm

TILE_BYTES = {"cpu": 4 << 20}
"""float32 weights of one tile: on a CPU small enough to stay in its cache."""

DEVICE_TILE_BYTES = 32 << 20
"""The same elsewhere: large enough to occupy a GPU."""

SCORES_AT_ONCE = 1 << 22
"""Attention scores held at a time (16 MiB)."""

ROWS_AT_ONCE = 256
"""Rows of a slice of attention. A slice skips the columns after its last row."""


def linear(x: Tensor, layer: DeviceLinear) -> Tensor:
    """x float32 [rows, in] -> x W^T + bias, float32 [rows, out]."""
    if layer.format.bits == 32:
        return functional.linear(x, layer.codes, layer.bias)
    out = layer.shape[0]
    step = tile_rows(layer.shape, x.device.type)
    output = torch.empty(x.shape[0], out, dtype=torch.float32, device=x.device)
    for start in range(0, out, step):
        stop = min(start + step, out)
        bias = None if layer.bias is None else layer.bias[start:stop]
        output[:, start:stop] = functional.linear(x, dequantize(layer, start, stop), bias)
    return output


def tile_rows(shape: tuple[int, int], device_kind: str) -> int:
    """Rows of a tile of a layer [out, in]."""
    return min(shape[0], max(1, TILE_BYTES.get(device_kind, DEVICE_TILE_BYTES) // (4 * shape[1])))


def dequantize(layer: DeviceLinear, start: int, stop: int) -> Tensor:
    """Rows start..stop-1 of a layer's weight as float32 [rows, in], the reader's values bit for bit."""
    codes = layer.codes[start:stop]
    if layer.alpha is None:
        return codes.float()
    if layer.format.bits == 4:
        codes = torch.stack([codes >> 4, codes & 15], dim=-1)
    rows, groups = stop - start, layer.alpha.shape[1]
    weight = codes.view(rows, groups, -1).float()
    weight -= 1 << (layer.format.bits - 1)
    alpha = layer.alpha[start:stop].float()
    weight *= alpha[..., -1:]
    if not layer.format.symmetric:
        weight += alpha[..., :1]
    return weight.view(rows, -1)[:, : layer.shape[1]]


def norm(spec: ModelSpec, x: Tensor, weights: DeviceNorm) -> Tensor:
    """The spec's norm over the last axis of x [rows, hidden]."""
    if spec.norm == "layernorm":
        return functional.layer_norm(x, x.shape[-1:], weights.weight, weights.bias, spec.norm_eps)
    return rms_norm(x, weights.weight, spec.norm_eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight


def residual_norm(
    spec: ModelSpec,
    hidden: Tensor,
    normed: Tensor,
    change: Tensor,
    post_norm: DeviceNorm | None,
    next_norm: DeviceNorm | None,
) -> tuple[Tensor, Tensor]:
    """The hidden states after attention or the MLP gave `change`, and those normed for what comes next
    (as they are where nothing does); the forms stand in `ModelSpec`.

    `hidden` are those before, `normed` what went in; all [rows, hidden].
    """
    if spec.residual == "normed_alpha":
        hidden = normed * spec.residual_alpha + change
    else:
        hidden = hidden + (change if post_norm is None else norm(spec, change, post_norm))
    return hidden, hidden if next_norm is None else norm(spec, hidden, next_norm)


def activation(spec: ModelSpec, x: Tensor) -> Tensor:
    """gelu(x), or silu(gate) * up of x = (gate, up) [rows, 2 * intermediate] -> [rows, intermediate]."""
    if not spec.gated:
        return functional.gelu(x, approximate="tanh")
    size = spec.intermediate_size
    return functional.silu(x[:, :size]).mul_(x[:, size:])


def rotate(rotary: RotarySpec, heads: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """Turn `heads` [rows, heads, head_dim] in place; cosine and sine are [rows, axes * pairs]."""
    pairs = rotary.dimensions // (2 * rotary.axes)
    cosine, sine = (table.view(-1, 1, rotary.axes, pairs) for table in (cosine, sine))
    turned = heads[..., : rotary.dimensions]
    if rotary.kind == "half":
        split = turned.view(*turned.shape[:-1], rotary.axes, 2, pairs)
        first, second = split[..., 0, :], split[..., 1, :]
    else:
        split = turned.view(*turned.shape[:-1], rotary.axes, pairs, 2)
        first, second = split[..., 0], split[..., 1]
    new_first = first * cosine - second * sine
    second.copy_(second * cosine + first * sine)
    first.copy_(new_first)


def attention(queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility) -> Tensor:
    """Softmax(Q K^T / sqrt(head_dim)) V for each head.

    queries [rows, heads, head_dim] of the rows from `visibility.start` on; keys and values
    [kv_heads, columns, head_dim] of all columns from 0. Returns [rows, heads * head_dim].
    """
    rows, heads, _ = queries.shape
    step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // (heads * keys.shape[1])))
    output = torch.empty(rows, queries[0].numel(), dtype=torch.float32, device=queries.device)
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        first, last = visibility.start + begin, visibility.start + end
        low, high = visibility.columns(first, last)
        hidden = hidden_columns(visibility, first, last, low, high, queries.device)
        output[begin:end] = _attend(queries[begin:end], keys[:, low:high], values[:, low:high], hidden)
    return output


def hidden_columns(
    visibility: Visibility, first: int, last: int, low: int, high: int, device: torch.device
) -> Tensor | None:
    """`Visibility.hidden` on a device; None where rows first..last-1 see all columns low..high-1."""
    if last - first == 1 and visibility.columns(first, last) == (low, high) and not visibility.prefix:
        return None
    rows = torch.arange(first, last, device=device)[:, None]
    columns = torch.arange(low, high, device=device)[None, :]
    hidden = columns > rows
    if visibility.window is not None:
        hidden |= columns <= rows - visibility.window
    return hidden & (columns >= visibility.prefix)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
    """One slice of rows. Query head h reads KV head h // group."""
    rows, heads, head_dim = queries.shape
    kv_heads, columns = keys.shape[:2]
    # [kv_heads, group * rows, head_dim]: the heads of a group share one matrix product
    grouped = (queries * (1 / math.sqrt(head_dim))).transpose(0, 1).reshape(kv_heads, -1, head_dim)
    scores = torch.bmm(grouped, keys.transpose(1, 2))
    if hidden is not None:
        scores.view(heads, rows, columns).masked_fill_(hidden, -math.inf)
    mixed = torch.bmm(torch.softmax(scores, dim=-1), values)
    return mixed.view(heads, rows, head_dim).transpose(0, 1).reshape(rows, -1)
