"""Small checkpoints for the converter's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama_tensors(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded float32 weights for `LLAMA` under their Hugging Face names."""
    rng = np.random.default_rng(seed)
    hidden, inner, vocab = LLAMA["hidden_size"], LLAMA["intermediate_size"], LLAMA["vocab_size"]
    shapes = {"model.embed_tokens": (vocab, hidden), "lm_head": (vocab, hidden)}
    for block in range(LLAMA["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        shapes |= {
            f"{prefix}self_attn.q_proj": (hidden, hidden),
            f"{prefix}self_attn.k_proj": (hidden // 2, hidden),
            f"{prefix}self_attn.v_proj": (hidden // 2, hidden),
            f"{prefix}self_attn.o_proj": (hidden, hidden),
            f"{prefix}mlp.gate_proj": (inner, hidden),
            f"{prefix}mlp.up_proj": (inner, hidden),
            f"{prefix}mlp.down_proj": (hidden, inner),
        }
    tensors = {
        f"{n}.weight": rng.standard_normal(s, np.float32) * np.float32(0.08) for n, s in shapes.items()
    }
    norms = ["model.norm"]
    for block in range(LLAMA["num_hidden_layers"]):
        norms += [f"model.layers.{block}.{n}" for n in ("input_layernorm", "post_attention_layernorm")]
    return tensors | {f"{name}.weight": 1 + rng.standard_normal(hidden, np.float32) / 10 for name in norms}


def write_llama(
    directory: Path, tensors: dict[str, np.ndarray[Any, Any]] | None = None, tokenizer: bool = False
) -> Path:
    """A single-file safetensors checkpoint; returns its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(LLAMA), "utf-8")
    save_file(tensors or llama_tensors(), directory / "model.safetensors")
    if tokenizer:
        (directory / "tokenizer.json").write_text(byte_tokenizer(), "utf-8")
    return directory


def byte_tokenizer() -> str:
    """A byte-level BPE with 256 byte tokens, three special ones and a few merges: 300 tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LLAMA["vocab_size"],
        special_tokens=[AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [
        "the cat sat on the mat and the dog sat on the cat",
        "there is another one over there, whether you believe this or that story about rivers and winters",
    ] * 4
    tokenizer.train_from_iterator(text, trainer)
    assert tokenizer.get_vocab_size() == LLAMA["vocab_size"]
    return str(tokenizer.to_str())
