"""One decoder block, and the final norm, in float32: the definition of what a `ModelSpec` means.

Enters: hidden states, and callables that give the block's weights. Leaves: hidden states. How weights
are stored and where keys and values are kept is the callers' business: the reference engine passes
cached weights and caches; the converter passes a `linear` that runs the original and the quantized
weights side by side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Float32
from pocketglm.engine.reference.attention import Visibility, attention
from pocketglm.engine.reference.rotary import Rotation

Linear = Callable[[str, Float32], Float32]
"""linear("attention.qkv", x [..., in]) -> x W^T + bias [..., out], a fresh array."""

Vector = Callable[[str], Float32]
"""vector("input_norm.weight") -> float32 [n]."""

Attend = Callable[[Float32, Float32, Float32], Float32]
"""attend(queries [..., rows, heads, head_dim], keys, values [..., rows, kv_heads, head_dim]) ->
[..., rows, heads * head_dim]. Keys and values are those of the new rows; queries and keys are rotated."""

GELU_SLOPE = np.float32(np.sqrt(2 / np.pi))


def block_forward(
    spec: ModelSpec, hidden: Float32, linear: Linear, vector: Vector, rotation: Rotation, attend: Attend
) -> Float32:
    """Hidden states [..., rows, hidden] through one block.

    Leading axes are carried along: with [2, rows, hidden], `linear` gets [2, rows, in] and may treat
    the two paths differently, and `attend` (see `prompt_attend`) keeps them apart. `rotation` is that
    of the rows, the same for all leading axes.
    """

    def attend_rows(x: Float32) -> Float32:
        return _attention(spec, x, linear, vector, rotation, attend)

    def mlp_rows(x: Float32) -> Float32:
        return _mlp(spec, x, linear)

    hidden = _residual(spec, hidden, vector, "input_norm", attend_rows, "attention_post_norm")
    return _residual(spec, hidden, vector, "mlp_norm", mlp_rows, "mlp_post_norm")


def prompt_attend(spec: ModelSpec, block: int, prefix: int = 0) -> Attend:
    """An `attend` for one whole prompt from position 0, without a cache; leading axes are allowed."""
    visibility = Visibility(0, prefix, spec.window_of(block))

    def attend(queries: Float32, keys: Float32, values: Float32) -> Float32:
        return attention(queries, np.swapaxes(keys, -2, -3), np.swapaxes(values, -2, -3), visibility)

    return attend


def apply_norm(spec: ModelSpec, hidden: Float32, vector: Vector, name: str) -> Float32:
    """The spec's norm over the last axis, with the weights called `name`."""
    weight = vector(f"{name}.weight")
    if spec.norm == "layernorm":
        return _layernorm(hidden, weight, vector(f"{name}.bias"), spec.norm_eps)
    return _rmsnorm(hidden, weight, spec.norm_eps)


def _residual(
    spec: ModelSpec,
    hidden: Float32,
    vector: Vector,
    norm: str,
    transform: Callable[[Float32], Float32],
    post_norm: str,
) -> Float32:
    """The residual connection around attention or the MLP; the three forms stand in `ModelSpec`."""
    normed = apply_norm(spec, hidden, vector, norm)
    change = transform(normed)
    if spec.residual == "normed_alpha":
        return normed * np.float32(spec.residual_alpha) + change
    if spec.residual == "sandwich":
        change = apply_norm(spec, change, vector, post_norm)
    return hidden + change


def _attention(
    spec: ModelSpec, x: Float32, linear: Linear, vector: Vector, rotation: Rotation, attend: Attend
) -> Float32:
    """Projections, q/k norm, rotary and attention of normed hidden states [..., rows, hidden]."""
    qkv = linear("attention.qkv", x)
    heads = qkv.reshape(*qkv.shape[:-1], -1, spec.head_dim)  # [..., rows, heads + 2 * kv_heads, head_dim]
    keys_at, values_at = spec.num_heads, spec.num_heads + spec.num_kv_heads
    if spec.qk_norm:
        for name, part in (("q_norm", heads[..., :keys_at, :]), ("k_norm", heads[..., keys_at:values_at, :])):
            part[...] = _rmsnorm(part, vector(f"attention.{name}.weight"), spec.norm_eps)
    rotation.apply(heads[..., :values_at, :])
    queries, keys, values = (
        heads[..., :keys_at, :],
        heads[..., keys_at:values_at, :],
        heads[..., values_at:, :],
    )
    return linear("attention.output", attend(queries, keys, values))


def _mlp(spec: ModelSpec, x: Float32, linear: Linear) -> Float32:
    if not spec.gated:
        return linear("mlp.down", _gelu_tanh(linear("mlp.up", x)))
    gate_up = linear("mlp.gate_up", x)
    gate, up = gate_up[..., : spec.intermediate_size], gate_up[..., spec.intermediate_size :]
    return linear("mlp.down", _silu(gate) * up)


def _layernorm(x: Float32, weight: Float32, bias: Float32, eps: float) -> Float32:
    centered: Float32 = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    centered /= np.sqrt(variance + np.float32(eps))
    centered *= weight
    centered += bias
    return centered


def _rmsnorm(x: Float32, weight: Float32, eps: float) -> Float32:
    mean_square = np.square(x).mean(axis=-1, keepdims=True)
    root: Float32 = np.sqrt(mean_square + np.float32(eps))
    return x / root * weight


def _gelu_tanh(x: Float32) -> Float32:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel, 2016, arXiv:1606.08415)."""
    inner: Float32 = np.square(x)
    inner *= np.float32(0.044715)
    inner += np.float32(1)
    inner *= x
    inner *= GELU_SLOPE
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(0.5)
    return inner


def _silu(x: Float32) -> Float32:
    """x / (1 + e^-x). Where e^-x exceeds float32, infinity gives the right limit, 0."""
    with np.errstate(over="ignore"):
        divisor: Float32 = np.exp(-x)
    divisor += np.float32(1)
    return x / divisor
