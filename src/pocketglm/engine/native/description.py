"""What the native engine is told about a package: plain numbers, names and places in files.

Enters: a checked package. Leaves: the arguments of `_engine.Stage` and `_engine.Head`. The numbers
stand for what `native/engine/pocketglm.h` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import KVType
from pocketglm.engine.reference.rotary import frequencies
from pocketglm.errors import EngineError
from pocketglm.package.encoding import LinearEntry, VectorEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import Package

if TYPE_CHECKING:
    from pocketglm.engine.native._engine import File, Tensor

ROLES = {
    name: role
    for role, names in enumerate(
        (
            ("attention.qkv",),
            ("attention.output",),
            ("mlp.up", "mlp.gate_up"),
            ("mlp.down",),
            ("head",),
            ("input_norm.weight",),
            ("input_norm.bias",),
            ("attention.q_norm.weight",),
            ("attention.k_norm.weight",),
            ("attention_post_norm.weight",),
            ("attention_post_norm.bias",),
            ("mlp_norm.weight",),
            ("mlp_norm.bias",),
            ("mlp_post_norm.weight",),
            ("mlp_post_norm.bias",),
            ("norm.weight",),
            ("norm.bias",),
        )
    )
    for name in names
}
"""Canonical tensor name -> `pglm_role`."""

NORMS = {"rmsnorm": 0, "layernorm": 1}
RESIDUALS = {"pre": 0, "normed_alpha": 1, "sandwich": 2}
MLPS = {"gelu_tanh": 0, "gated_silu": 1}
KV_TYPES: dict[KVType, int] = {"float32": 0, "float16": 1, "int8": 2}


def describe_spec(spec: ModelSpec) -> dict[str, Any]:
    """The fields of `pglm_spec`."""
    return {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_heads": spec.num_heads,
        "num_kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "intermediate_size": spec.intermediate_size,
        "norm": NORMS[spec.norm],
        "residual": RESIDUALS[spec.residual],
        "mlp": MLPS[spec.mlp],
        "qk_norm": spec.qk_norm,
        "rotary_dimensions": spec.rotary.dimensions,
        "rotary_axes": spec.rotary.axes,
        "rotary_interleaved": spec.rotary.kind == "interleaved",
        "norm_eps": spec.norm_eps,
        "residual_alpha": spec.residual_alpha,
        # The reference engine's own table, so that both turn by the same angles
        "frequencies": frequencies(spec.rotary),
    }


def describe_block(package: Package, index: int) -> File:
    """One block's file."""
    return _describe_file(package, block_file(index), package.spec.window_of(index) or 0)


def describe_head(package: Package) -> File:
    """The head's file."""
    return _describe_file(package, HEAD_FILE, 0)


def _describe_file(package: Package, name: str, window: int) -> File:
    manifest = package.manifest
    tensors = [_describe_tensor(entry, name) for entry in manifest.weights[name]]
    # A window longer than any context is no window, and every number fits 32 bits
    kept_window = window if window < package.spec.max_context else 0
    return str(package.path / name), manifest.files[name].size, kept_window, tensors


def _describe_tensor(entry: LinearEntry | VectorEntry, file: str) -> Tensor:
    if entry.name not in ROLES:
        raise EngineError(f"the native engine knows no tensor called {entry.name}", where=file)
    role = ROLES[entry.name]
    if isinstance(entry, VectorEntry):
        return role, entry.shape[0], 1, 32, 0, False, False, entry.offset, 0, 0
    rows, inputs = entry.shape
    group = entry.format.group_size(inputs) if entry.format.quantized else 0
    return (
        *(role, rows, inputs, entry.format.bits, group, entry.format.symmetric, entry.bias),
        *(entry.codes_offset, entry.alpha_offset, entry.bias_offset),
    )
