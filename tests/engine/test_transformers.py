"""Engines against the transformers library: tiny seeded models of every family.

Each model is saved as safetensors in float32 and in bfloat16 and goes checkpoint -> architecture ->
package -> engine. The library computes in float32 on the same (rounded) weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoints import TOLERANCES, float32_runner, greedy, largest_difference

VOCABULARY = 128
STEPS = 12
LONG = 600
"""Tokens of the long context: past 512, and past every sliding window here."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-grouped": ("Llama", {"num_key_value_heads": 2, "head_dim": 24}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-bias": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-linear-rope": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "llama3-rope": ("Llama", {"num_key_value_heads": 2, "rope_parameters": LLAMA3_SCALING}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 16}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 32}),
    "glm": (
        "Glm",
        {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True, "rope_parameters": PARTIAL},
    ),
    "glm4": (
        "Glm4",
        {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True, "rope_parameters": PARTIAL},
    ),
}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Tiny matrices: a second thread would only be waited for."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("engine", TOLERANCES)
def test_matches_transformers(tmp_path: Path, name: str, dtype: str, engine: str) -> None:
    import torch

    model = _saved_model(tmp_path / "checkpoint", *MODELS[name], dtype)
    ids = np.random.default_rng(1).integers(3, VOCABULARY, 20).tolist()
    long_ids = np.random.default_rng(2).integers(3, VOCABULARY, LONG).tolist()
    tolerance = TOLERANCES[engine]
    package = float32_runner(tmp_path / "checkpoint", tmp_path / "package", engine)
    with package as runner, torch.inference_mode():
        # The oracle computes every sequence anew: its cache's interface changes from version to version
        expected = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        assert largest_difference(runner.run(ids), expected) < tolerance
        chosen = []
        for _ in range(STEPS):
            chosen.append(int(expected[-1].argmax()))
            expected = model(torch.tensor([ids + chosen]), use_cache=False).logits[0].numpy()
            step = runner.feed({0: chosen[-1:]})[0]
            assert largest_difference(step, expected[-1:]) < tolerance
        assert greedy(runner, ids, STEPS, sequence=1) == chosen
        expected = model(torch.tensor([long_ids]), use_cache=False).logits[0].numpy()
        assert largest_difference(runner.run(long_ids, sequence=2), expected) < tolerance
        assert largest_difference(runner.run(long_ids, 3, chunks=(1, 100, 513)), expected) < tolerance


def _saved_model(path: Path, family: str, settings: dict[str, Any], dtype: str) -> Any:
    """A model whose every weight matters: matrices of order-one gain, norms and biases not trivial.

    It is saved at `path` in `dtype` and loaded from there in float32.
    """
    import torch
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**SIZES, **settings})
    kind = getattr(transformers, f"{family}ForCausalLM")
    model = kind(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 2:
                weight.copy_(noise * weight.shape[1] ** -0.5)
            else:
                weight.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
    model.to(getattr(torch, dtype)).save_pretrained(path)
    # A fresh load: converting the model in place would leave rotary frequencies rounded to bfloat16
    return kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
