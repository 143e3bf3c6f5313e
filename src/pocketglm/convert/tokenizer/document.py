"""The parts of a `tokenizer.json`, built and checked.

Enters: vocabulary, merges, special tokens. Leaves: plain JSON objects in the layout of the tokenizers
library, which every engine and other programs read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pocketglm.errors import CheckpointError

Json = dict[str, Any]


def added_token(token_id: int, content: str, *, special: bool, normalized: bool = False) -> Json:
    """One entry of `added_tokens`. `normalized` tokens are looked for after normalization."""
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": special,
    }


def bpe_model(
    vocab: Mapping[str, int],
    merges: Iterable[Sequence[str]],
    *,
    unk_token: str | None = None,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> Json:
    """A byte-pair model. `ignore_merges` takes a word that is a token as a whole, without merging."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unk_token,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": unk_token is not None,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": dict(vocab),
        "merges": [list(pair) for pair in merges],
    }


def split(pattern: str, behavior: str = "Isolated") -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def replace(old: str, new: str) -> Json:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def replace_regex(pattern: str, new: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": new}


def byte_level(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": use_regex}


def sequence(key: str, steps: Sequence[Json]) -> Json | None:
    """None, the step itself, or a `Sequence` of the steps; `key` names the list."""
    if len(steps) <= 1:
        return steps[0] if steps else None
    return {"type": "Sequence", key: list(steps)}


def surround(prefix: Sequence[tuple[str, int]], suffix: Sequence[tuple[str, int]] = ()) -> Json | None:
    """The post-processor that puts special tokens (text, id) around a bare prompt."""
    if not prefix and not suffix:
        return None

    def special(text: str) -> Json:
        return {"SpecialToken": {"id": text, "type_id": 0}}

    def around(*sequences: Json) -> list[Json]:
        return [*(special(t) for t, _ in prefix), *sequences, *(special(t) for t, _ in suffix)]

    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": around(first),
        "pair": around(first, second),
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (*prefix, *suffix)},
    }


def document(
    model: Json,
    added: Iterable[Json],
    *,
    normalizer: Json | None = None,
    pre_tokenizer: Json | None = None,
    post_processor: Json | None = None,
    decoder: Json | None = None,
) -> Json:
    """A whole `tokenizer.json`; added tokens are put in the order of their ids."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def vocabulary(tokenizer: Json) -> dict[str, int]:
    """Every token's id by text, added tokens included."""
    model = tokenizer["model"]
    if model["type"] == "Unigram":
        vocab = {piece: number for number, (piece, _) in enumerate(model["vocab"])}
    else:
        vocab = dict(model["vocab"])
    vocab.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    return vocab


def unique_ids(tokens: Sequence[str], where: object) -> dict[str, int]:
    """Token ids by text. Raises `CheckpointError` where a text stands twice."""
    vocab: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if token in vocab:
            raise CheckpointError(f"token {token!r} stands twice in the vocabulary", where=where)
        vocab[token] = number
    return vocab


def to_text(tokenizer: Json) -> str:
    """Compact JSON, non-ASCII kept as it is."""
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
