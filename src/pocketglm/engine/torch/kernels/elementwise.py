"""Norms, residuals and activations, each one pass over its rows. The oracles are those of `plain`.

Enters: float32 rows. Leaves: float32 rows. One program computes one row, which stands in its registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.torch.kernels.launch import FUSED, next_power_of_two
from pocketglm.engine.torch.weights import DeviceNorm

ACTIVATION_BLOCK = 1024
"""Values of one program of the activation: eight for each thread."""


def norm(spec: ModelSpec, x: Tensor, weights: DeviceNorm) -> Tensor:
    """The spec's norm over the last axis of x [rows, hidden]."""
    x = x.contiguous()
    output = torch.empty_like(x)
    size = x.shape[-1]
    _norm[(x.shape[0],)](
        x,
        weights.weight,
        weights.bias,
        output,
        size,
        spec.norm_eps,
        CENTRED=spec.norm == "layernorm",
        BLOCK=next_power_of_two(size),
        num_warps=_warps(size),
        **FUSED,
    )
    return output


def residual_norm(
    spec: ModelSpec,
    hidden: Tensor,
    normed: Tensor,
    change: Tensor,
    post_norm: DeviceNorm | None,
    next_norm: DeviceNorm | None,
) -> tuple[Tensor, Tensor]:
    """The hidden states after `change`, and those normed for what comes next; see `plain.residual_norm`."""
    rows, size = hidden.shape
    output, next_normed = torch.empty_like(hidden), torch.empty_like(hidden)
    _residual_norm[(rows,)](
        normed if spec.residual == "normed_alpha" else hidden,
        change.contiguous(),
        post_norm and post_norm.weight,
        post_norm and post_norm.bias,
        next_norm and next_norm.weight,
        next_norm and next_norm.bias,
        output,
        next_normed,
        size,
        spec.residual_alpha if spec.residual == "normed_alpha" else 1.0,
        spec.norm_eps,
        CENTRED=spec.norm == "layernorm",
        BLOCK=next_power_of_two(size),
        num_warps=_warps(size),
        **FUSED,
    )
    return output, next_normed if next_norm else output


def activation(spec: ModelSpec, x: Tensor) -> Tensor:
    """gelu(x), or silu(gate) * up of x = (gate, up) [rows, 2 * intermediate] -> [rows, intermediate]."""
    rows, size = x.shape[0], spec.intermediate_size
    output = torch.empty(rows, size, dtype=torch.float32, device=x.device)
    grid = (rows, triton.cdiv(size, ACTIVATION_BLOCK))
    _activation[grid](x.contiguous(), output, size, GATED=spec.gated, BLOCK=ACTIVATION_BLOCK, **FUSED)
    return output


def _warps(size: int) -> int:
    """Warps of a program that holds a row of `size`: some 16 values for each thread."""
    return max(1, min(16, next_power_of_two(size) // 512))


@triton.jit
def _normalized(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    place: tl.tensor,
    size: int,
    eps: float,
    CENTRED: tl.constexpr,
) -> tl.tensor:
    """A row in registers, normed. Past its size stand zeros before and after."""
    inside = place < size
    if CENTRED:
        x = tl.where(inside, x - tl.sum(x, axis=0) / size, 0.0)
    x *= 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / size + eps)
    x *= tl.load(weight + place, mask=inside, other=0.0)
    if bias is not None:
        x += tl.load(bias + place, mask=inside, other=0.0)
    return x


@triton.jit
def _norm(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    size: int,
    eps: float,
    CENTRED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    begin = tl.program_id(0).to(tl.int64) * size
    place = tl.arange(0, BLOCK)
    row = tl.load(x + begin + place, mask=place < size, other=0.0)
    normed = _normalized(row, weight, bias, place, size, eps, CENTRED)
    tl.store(output + begin + place, normed, mask=place < size)


@triton.jit
def _residual_norm(
    base: tl.tensor,  # what the change is added to, after `alpha`
    change: tl.tensor,
    post_weight: tl.tensor,
    post_bias: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    normed: tl.tensor,
    size: int,
    alpha: float,
    eps: float,
    CENTRED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    begin = tl.program_id(0).to(tl.int64) * size
    place = tl.arange(0, BLOCK)
    inside = place < size
    added = tl.load(change + begin + place, mask=inside, other=0.0)
    if post_weight is not None:
        added = _normalized(added, post_weight, post_bias, place, size, eps, CENTRED)
    row = tl.load(base + begin + place, mask=inside, other=0.0) * alpha + added
    tl.store(output + begin + place, row, mask=inside)
    if weight is not None:
        row = _normalized(row, weight, bias, place, size, eps, CENTRED)
        tl.store(normed + begin + place, row, mask=inside)


@triton.jit
def _activation(x: tl.tensor, output: tl.tensor, size: int, GATED: tl.constexpr, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    if GATED:
        gate = tl.load(x + row * 2 * size + place, mask=inside, other=0.0)
        up = tl.load(x + row * 2 * size + size + place, mask=inside, other=0.0)
        result = gate * tl.sigmoid(gate) * up
    else:
        value = tl.load(x + row * size + place, mask=inside, other=0.0)
        # (1 + tanh z) / 2 is the sigmoid of 2 z; z = sqrt(2 / pi) (x + 0.044715 x^3)
        result = value * tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * value * value))
    tl.store(output + row * size + place, result, mask=inside)
