"""What MNN's own exporter writes, under the names of the Hugging Face checkpoint it came from.

Enters: a graph and the directory's JSON files. Leaves: names, places and settings; or a refusal. The
exporter keeps few of a model's settings. The others are taken from the graph where they can be known for
sure: heads from the rotary operator, the epsilon from the norms, the rotary base from its frequencies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketglm.checkpoint.mnn_llm_graph import Graph, LinearPlace, NormPlace
from pocketglm.errors import CheckpointError, UnsupportedModelError

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "llama": (),
    "qwen2": ("q_proj", "k_proj", "v_proj"),
    "qwen3": (),
}
"""Model types that can be read -> projections that have a bias."""

BASES = (10000.0, 100000.0, 500000.0, 1000000.0, 5000000.0, 10000000.0)
"""Rotary bases of the released models of these families."""

DECIMALS = 6
"""Constants pass through text with so many decimals on their way through MNN's exporter."""

MAX_CONTEXT = 2048
"""MNN's own default, where config.json has no `max_all_tokens`: the exporter does not keep the model's."""

HEAD, EMBEDDING, FINAL_NORM = "lm_head", "model.embed_tokens", "model.norm"
_LINEAR = re.compile(r"/layers\.(\d+)/(self_attn|mlp)/(\w+)/Linear")
_NORM = re.compile(r"/blocks\.(\d+)/(input_layernorm|post_attention_layernorm)/.*")
_ROTARY = re.compile(r"/layers\.(\d+)/self_attn/FusedRoPE")
_HEAD = "/lm/lm_head/Linear"


@dataclass(frozen=True)
class DescribedExport:
    """Checkpoint names (without `.weight`) -> places; `biased` layers have a bias even if it is zero."""

    linears: Mapping[str, LinearPlace]
    norms: Mapping[str, NormPlace]
    biased: frozenset[str]
    config: dict[str, Any]


def describe_export(
    graph: Graph, model: Mapping[str, Any], settings: Mapping[str, Any], path: Path
) -> DescribedExport:
    """Raises `UnsupportedModelError`, naming what is unknown, for what cannot be read exactly."""
    kind = model.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise _refusal(f"the model type {kind!r}", path)
    for key, accepted in (("attention_type", "full"), ("attention_mask", "float")):
        if model.get(key, accepted) != accepted:
            raise _refusal(f"{key} = {model[key]!r}", path)
    linears = {_linear_name(place.name, path): place for place in graph.linears}
    norms = _norms(graph, path)
    if HEAD not in linears or FINAL_NORM not in norms or not graph.rotaries:
        raise _refusal("a graph without an output projection, a final norm or rotary operators", path)
    biased = {name for name in linears if name.rpartition(".")[2] in FAMILIES[kind]}
    return DescribedExport(linears, norms, frozenset(biased), _config(graph, model, settings, linears, path))


def _linear_name(name: str, path: Path) -> str:
    if name == _HEAD:
        return HEAD
    match = _LINEAR.fullmatch(name)
    if match is None:
        raise _refusal(f"a layer called {name}", path)
    return f"model.layers.{match[1]}.{match[2]}.{match[3]}"


def _norms(graph: Graph, path: Path) -> dict[str, NormPlace]:
    """Norms by name: the one that belongs to no block is the last."""
    named: dict[str, NormPlace] = {}
    for rotary in graph.rotaries:
        match = _ROTARY.fullmatch(rotary.name)
        if match is None or len(rotary.norms) not in (0, 2):
            raise _refusal(f"a rotary operator called {rotary.name}", path)
        for part, norm in zip(("q_norm", "k_norm"), rotary.norms, strict=False):
            named[f"model.layers.{match[1]}.self_attn.{part}"] = norm
    for norm in graph.norms:
        match = _NORM.fullmatch(norm.name)
        name = f"model.layers.{match[1]}.{match[2]}" if match else FINAL_NORM
        if name in named:
            raise _refusal(f"a norm called {norm.name}", path)
        named[name] = norm
    return named


def _config(
    graph: Graph,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    linears: Mapping[str, LinearPlace],
    path: Path,
) -> dict[str, Any]:
    rotary = graph.rotaries[0]
    same = {(r.num_heads, r.num_kv_heads, r.head_dim, r.dimensions) for r in graph.rotaries}
    inner = [norm for rotary in graph.rotaries for norm in rotary.norms]
    epsilons = {norm.epsilon for norm in (*graph.norms, *inner)}
    gate = linears.get("model.layers.0.mlp.gate_proj")
    if len(same) != 1 or len(epsilons) != 1 or gate is None or rotary.dimensions != rotary.head_dim:
        raise _refusal("blocks that differ, or a partly rotated head,", path)
    scale = model.get("attn_scale", 0.0) or rotary.head_dim**-0.5
    if not math.isclose(scale, rotary.head_dim**-0.5, rel_tol=1e-6):
        raise _refusal(f"attn_scale = {scale}", path)
    hidden = linears[HEAD].inputs
    if hidden != model.get("hidden_size"):
        raise CheckpointError(
            f"hidden_size is {model.get('hidden_size')!r}, the graph has {hidden}", where=path
        )
    return {
        "model_type": model["model_type"],
        "embedding_name": EMBEDDING,
        "head_name": HEAD,
        "vocab_size": linears[HEAD].outputs,
        "hidden_size": hidden,
        "intermediate_size": gate.outputs,
        "num_hidden_layers": len(graph.rotaries),
        "num_attention_heads": rotary.num_heads,
        "num_key_value_heads": rotary.num_kv_heads,
        "head_dim": rotary.head_dim,
        "max_position_embeddings": settings.get("max_all_tokens", MAX_CONTEXT),
        # The shortest decimal that gives the stored float32
        "rms_norm_eps": float(str(np.float32(epsilons.pop()))),
        "rope_theta": _rotary_base(graph, rotary.head_dim, path),
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }


def _rotary_base(graph: Graph, head_dim: int, path: Path) -> float:
    """The base whose frequencies the graph holds, exactly or rounded to `DECIMALS`."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    found = [values for values in graph.constants.values() if values.size == head_dim // 2]
    for base in BASES:
        expected = base**-exponents
        for values in found:
            if np.abs(values - expected).max() < 0.51 * 10.0**-DECIMALS:
                return base
    raise _refusal("rotary frequencies other than the usual ones", path)


def _refusal(what: str, path: Path) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"an MNN-LLM directory of another exporter with {what} cannot be read exactly",
        where=path,
        hint="convert the checkpoint it was made from",
    )
