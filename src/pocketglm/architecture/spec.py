"""ModelSpec: the one parametric decoder. Every supported model is this decoder with other settings.

Enters: what an architecture file read from `config.json`, or a package manifest. Leaves: a frozen,
checked description that the converter, the engines and the planner follow. Nothing here, and
nothing right of here, asks which model it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pocketglm.errors import InputError

MAX_DIMENSION = 1 << 24
"""No model has a longer axis; a larger value in a manifest is an attack or a bug."""


@dataclass(frozen=True)
class RopeScaling:
    """Stretching of the rotary frequencies beyond the trained context.

    `linear` divides every frequency by `factor`. `llama3` (Llama 3.1) divides those whose wavelength
    exceeds `original_context / low_freq_factor`, keeps those below
    `original_context / high_freq_factor`, and blends in between.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_context: int = 0


@dataclass(frozen=True)
class RotarySpec:
    """Rotary position embedding of one head.

    The head's `dimensions` are split evenly over `axes`; axis `a` is rotated by row `a` of the
    positions. `half` pairs dimension i with i + d/2 (GPT-NeoX), `interleaved` pairs 2i with 2i + 1.
    Dimensions past `dimensions` are left alone. Frequency i of an axis of size d is base^(-2i/d).
    """

    kind: Literal["half", "interleaved"]
    dimensions: int
    base: float
    axes: int = 1
    scaling: RopeScaling | None = None
    frequency_dtype: Literal["float32", "float16"] = "float32"  # ChatGLM-6B stores them as float16


@dataclass(frozen=True)
class PrefixTokens:
    """Token ids that set ChatGLM-6B's positions and mask: the context ends where `sop` stands."""

    mask: int
    gmask: int
    sop: int


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer. Sizes are element counts; see `docs/package-format.md` for tensors."""

    family: str  # for people and file names only: no code may branch on it
    vocab_size: int
    hidden_size: int
    num_blocks: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_context: int
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    # pre:          x += attention(norm(x));        x += mlp(norm(x))
    # normed_alpha: x = norm(x)*alpha + attention(norm(x)), likewise for the MLP   (ChatGLM-6B)
    # sandwich:     x += norm(attention(norm(x)));  x += norm(mlp(norm(x)))         (GLM-4-0414)
    residual: Literal["pre", "normed_alpha", "sandwich"]
    rotary: RotarySpec
    mlp: Literal["gelu_tanh", "gated_silu"]
    tied_head: bool
    residual_alpha: float = 1.0
    qkv_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # an RMS norm over each head of q and of k, before rotary
    embedding_scale: float = 1.0
    positions: Literal["sequential", "glm_2d"] = "sequential"
    prefix_tokens: PrefixTokens | None = None  # set if and only if positions is glm_2d
    sliding_window: int | None = None  # a row sees at most this many positions, itself included
    sliding_window_start: int = 0  # the first block that has the window

    def __post_init__(self) -> None:
        check_spec(self)

    @property
    def q_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def gated(self) -> bool:
        return self.mlp == "gated_silu"

    @property
    def position_axes(self) -> int:
        return self.rotary.axes

    def window_of(self, block: int) -> int | None:
        """Sliding window of one block, or None."""
        return self.sliding_window if block >= self.sliding_window_start else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Build from untrusted JSON. Unknown, missing or mistyped fields raise `InputError`."""
        spec: ModelSpec = _build(cls, data, "spec")
        return spec


def check_spec(spec: ModelSpec) -> None:
    """Refuse settings that no decoder can have. Raises `InputError` naming the setting."""

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise InputError(f"model settings: {message}")

    for name in (
        "vocab_size",
        "hidden_size",
        "num_blocks",
        "num_heads",
        "num_kv_heads",
        "head_dim",
        "intermediate_size",
        "max_context",
    ):
        value = getattr(spec, name)
        need(0 < value <= MAX_DIMENSION, f"{name} is {value}, expected 1 to {MAX_DIMENSION}")
    need(
        spec.num_heads % spec.num_kv_heads == 0,
        f"{spec.num_heads} heads do not divide over {spec.num_kv_heads} KV heads",
    )
    need(0 < spec.norm_eps < 1, f"norm_eps is {spec.norm_eps}")
    need(math.isfinite(spec.residual_alpha) and math.isfinite(spec.embedding_scale), "a scale is not finite")
    rotary = spec.rotary
    need(rotary.axes in (1, 2), f"rotary axes is {rotary.axes}")
    need(
        0 < rotary.dimensions <= spec.head_dim and rotary.dimensions % (2 * rotary.axes) == 0,
        f"rotary dimensions is {rotary.dimensions} of a head of {spec.head_dim}",
    )
    need(math.isfinite(rotary.base) and rotary.base > 1, f"rotary base is {rotary.base}")
    if rotary.scaling is not None:
        _check_scaling(rotary.scaling, need)
    need(
        (spec.positions == "glm_2d") == (spec.prefix_tokens is not None),
        "glm_2d positions need prefix_tokens, and only they",
    )
    need(spec.sliding_window is None or spec.sliding_window > 0, f"sliding_window is {spec.sliding_window}")


def _check_scaling(scaling: RopeScaling, need: Callable[[bool, str], None]) -> None:
    factors = (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor)
    need(all(math.isfinite(f) and f > 0 for f in factors), f"rope scaling factors are {factors}")
    if scaling.kind == "llama3":  # the blend divides by their difference, and by the context
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        need(low < high, f"rope low_freq_factor {low} is not below high_freq_factor {high}")
        need(scaling.original_context > 0, f"rope original_context is {scaling.original_context}")


def _build(cls: Any, data: object, where: str) -> Any:
    """Dataclass from JSON with exact field names and types."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where} must be an object, found {type(data).__name__}")
    hints = get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise InputError(f"{where} has unknown fields: {', '.join(map(str, unknown))}")
    values = {name: _coerce(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise InputError(f"{where} lacks: {', '.join(missing)}")
    return cls(**values)


def _coerce(kind: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{where} is {value!r}, expected one of {', '.join(map(str, get_args(kind)))}")
        return value
    if type(None) in get_args(kind):  # Optional[X]
        inner = next(option for option in get_args(kind) if option is not type(None))
        return None if value is None else _coerce(inner, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where} is {value!r}, expected {kind.__name__}")
    return value
