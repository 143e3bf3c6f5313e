"""Small complete packages for the tests right of the engine: weights, tokenizer, settings, template.

The tokenizer is byte-level without merges: token i is the byte that GPT-2's alphabet puts at i, and
special tokens follow. `write_tiny` takes any spec with a vocabulary of `VOCAB` tokens.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.contract_specs import SPECS
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.spec import ModelSpec, PrefixTokens
from pocketglm.package.manifest import MANIFEST_FILE, Manifest
from pocketglm.package.writer import write_small_file
from pocketglm.quantize.formats import WeightFormat

SPECIALS = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "[MASK]", "[gMASK]", "<sop>", "<|pad|>")
BEGIN, END, USER, ASSISTANT, MASK, GMASK, SOP, PAD = range(256, 264)
VOCAB = 264
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

CAUSAL = replace(SPECS["plain"], vocab_size=VOCAB, max_context=1200)
PREFIXED = replace(
    SPECS["prefix_2d_alpha_layernorm_gelu"],
    vocab_size=VOCAB,
    max_context=1200,
    prefix_tokens=PrefixTokens(mask=MASK, gmask=GMASK, sop=SOP),
)


def tokenizer_json(beginning: tuple[str, ...] = ("<|begin|>",), ending: tuple[str, ...] = ()) -> str:
    """A byte-level tokenizer; a prompt is put between `beginning` and `ending`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join((*beginning, "$A", *ending)),
        special_tokens=[(text, SPECIALS.index(text) + 256) for text in (*beginning, *ending)],
    )
    return tokenizer.to_str()


def write_tiny(
    path: Path,
    spec: ModelSpec = CAUSAL,
    *,
    seed: int = 0,
    generation: dict[str, Any] | None = None,
    tokenizer: str | None = "",
    template: str | None = TEMPLATE,
    weight_format: WeightFormat | None = None,
) -> Path:
    """Write a package with seeded random weights. `tokenizer` "" stands for the one that fits."""
    write_package(path, spec, random_tensors(spec, seed), weight_format or WeightFormat(32))
    if tokenizer == "":
        prefixed = spec.prefix_tokens is not None
        tokenizer = tokenizer_json((), ("[gMASK]", "<sop>")) if prefixed else tokenizer_json()
    settings = {"do_sample": False, "eos_token_ids": [END]} if generation is None else generation
    texts = {
        "tokenizer.json": tokenizer,
        "chat_template.jinja": template,
        "generation.json": json.dumps(settings),
    }
    add_files(path, {name: text for name, text in texts.items() if text is not None})
    return path


def add_files(path: Path, texts: dict[str, str]) -> None:
    """Add side files and list them in the manifest."""
    manifest = Manifest.from_json((path / MANIFEST_FILE).read_text(), path)
    files = {name: write_small_file(path / name, text.encode()) for name, text in texts.items()}
    updated = replace(manifest, files={**manifest.files, **files})
    (path / MANIFEST_FILE).write_text(updated.to_json())
