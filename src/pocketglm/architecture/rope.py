"""Rotary settings in the notation of the transformers library.

Enters: `rope_theta` and `rope_scaling` (version 4), or `rope_parameters` that holds both (version 5).
Leaves: a `RotarySpec`.
"""

from __future__ import annotations

from typing import Literal

from pocketglm.architecture.config import Config
from pocketglm.architecture.spec import RopeScaling, RotarySpec

READ = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"}
LLAMA3 = {"low_freq_factor", "high_freq_factor"}
ORIGINAL = "original_max_position_embeddings"


def read_rotary(
    config: Config,
    head_dim: int,
    max_context: int,
    kind: Literal["half", "interleaved"] = "half",
    partial: float | None = None,
) -> RotarySpec:
    """The model's rotary embedding.

    `partial` is the family's default share of a head that is rotated; None where the family rotates
    whole heads and nothing else.
    """
    section = config.section("rope_scaling") or config.section("rope_parameters") or Config({}, config.where)
    base = section.number("rope_theta", config.number("rope_theta", 10000.0))
    if partial is None:
        section.accept("partial_rotary_factor", 1)
        config.accept("partial_rotary_factor", 1)
        partial = 1.0
    share = section.number("partial_rotary_factor", config.number("partial_rotary_factor", partial))
    return RotarySpec(
        kind=kind, dimensions=int(head_dim * share), base=base, scaling=_read_scaling(section, max_context)
    )


def _read_scaling(section: Config, max_context: int) -> RopeScaling | None:
    name = "rope_type" if "rope_type" in section else "type"
    kind = section.text(name, "default")
    if kind not in ("default", "linear", "llama3"):
        raise section.unsupported(name, hint="default, linear and llama3 rotary scaling are implemented")
    for setting in sorted(set(section.values) - READ - {ORIGINAL} - (LLAMA3 if kind == "llama3" else set())):
        section.accept(setting)
    if kind == "linear":
        return RopeScaling("linear", section.number("factor"))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            factor=section.number("factor"),
            low_freq_factor=section.number("low_freq_factor"),
            high_freq_factor=section.number("high_freq_factor"),
            original_context=section.integer(ORIGINAL, max_context),
        )
    return None
