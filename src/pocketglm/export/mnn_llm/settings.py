"""The JSON files of an MNN-LLM directory.

Enters: a package. Leaves: `config.json` (how MNN runs it), `llm_config.json` (what it is), and
`pocketglm.json` (where it came from, and what `pocketglm convert` needs to read it back).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pocketglm
from pocketglm.architecture.spec import ModelSpec
from pocketglm.export.mnn_llm.graph import GRAPH_FILE
from pocketglm.export.mnn_llm.tokenizer import TOKENIZER_FILE
from pocketglm.export.mnn_llm.weights import EMBEDDING_FILE, WEIGHT_FILE, WeightPlan
from pocketglm.generate.answer_defaults import GENERATION_FILE
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.template import TEMPLATE_FILE
from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.reader import Package

CONFIG_FILE, MODEL_FILE, STAMP_FILE = "config.json", "llm_config.json", "pocketglm.json"
STAMP_FORMAT, STAMP_VERSION = "pocketglm-mnn-llm", 1
THREADS = 4
"""What MNN's own exporter writes; apps have a setting of their own."""


def run_settings(
    package: Package, plan: WeightPlan, sampling: SamplingSettings, dynamic_option: int
) -> dict[str, Any]:
    """`config.json`. Quantized weights stay quantized; 32-bit packages ask for full precision."""
    bits = {entry.format.bits for entry in plan.tensors.values() if isinstance(entry, LinearEntry)}
    settings: dict[str, Any] = {
        "llm_model": GRAPH_FILE,
        "llm_weight": WEIGHT_FILE,
        "tokenizer_file": TOKENIZER_FILE,
        "backend_type": "cpu",
        "thread_num": THREADS,
        "precision": "high" if 32 in bits else "low",
        "memory": "low",
        "dynamic_option": dynamic_option,
        "max_all_tokens": package.spec.max_context,
        **_sampler(sampling),
    }
    if plan.embedding != "float16":
        settings["embedding_file"] = EMBEDDING_FILE
    if package.spec.positions == "glm_2d":
        settings["reuse_kv"] = False  # MNN's mask and positions are those of one prompt from the start
    return settings


def _sampler(sampling: SamplingSettings) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"sampler_type": "greedy"}
    filters = {
        "topK": ("top_k", sampling.top_k or None),
        "topP": ("top_p", sampling.top_p if sampling.top_p < 1 else None),
        "min_p": ("min_p", sampling.min_p or None),
    }
    used = {name: value for name, value in filters.items() if value[1] is not None}
    return {
        "sampler_type": "mixed",
        "mixed_samplers": [*used, "temperature"],
        "temperature": sampling.temperature,
        **dict(used.values()),
        **({"repetition_penalty": sampling.repetition_penalty} if sampling.repetition_penalty != 1 else {}),
    }


def model_settings(
    spec: ModelSpec, plan: WeightPlan, window: bool, template: str | None, eos: str
) -> dict[str, Any]:
    """`llm_config.json`. `hidden_size` is the width of an embedding row (see `EmbeddingForm`)."""
    parts = 3 if plan.embedding == "three-bfloat16" else 1
    settings: dict[str, Any] = {
        "model_type": spec.family,
        "hidden_size": parts * spec.hidden_size,
        "layer_nums": spec.num_blocks,
        "attention_mask": "glm" if spec.positions == "glm_2d" else "float",
        "attention_type": "mix" if window else "full",
        "key_value_shape": [2, 1, 0, spec.num_kv_heads, spec.head_dim],
        "is_mrope": False,
        "bos": "",
        "prompt_template": "%s",
        "system_prompt_template": "%s",
        "user_prompt_template": "%s",
        "assistant_prompt_template": "%s",
    }
    if window:
        settings["sliding_window"] = spec.sliding_window
    if plan.embedding == "float16":
        settings["tie_embeddings"] = {
            "weight_offset": plan.embedding_offset,
            "alpha_offset": 0,
            "alpha_size": 0,
            "quant_bit": 16,
            "quant_block": 0,
        }
    if template is not None:
        settings["jinja"] = {"chat_template": template, "eos": eos}
    return settings


def stamp(package: Package, plan: WeightPlan, mnn_version: str, check: Mapping[str, Any]) -> dict[str, Any]:
    """`pocketglm.json`."""
    return {
        "format": STAMP_FORMAT,
        "version": STAMP_VERSION,
        "pocketglm": pocketglm.__version__,
        "mnn": mnn_version,
        "package": package.fingerprint,
        "model": package.spec.to_dict(),
        "padded": {
            name: entry.shape[1]
            for name, entry in plan.tensors.items()
            if isinstance(entry, LinearEntry) and entry.stored_inputs != entry.shape[1]
        },
        "embedding": {"form": plan.embedding, "offset": plan.embedding_offset},
        "generation": package.json(GENERATION_FILE),
        "chat_template": package.text(TEMPLATE_FILE),
        "source": package.manifest.source,
        "check": check,
    }


def token_text(tokenizer: Tokenizer | None, token: int | None) -> str:
    """A token's text, empty where there is none."""
    return (tokenizer.token_text(token) or "") if tokenizer is not None and token is not None else ""
