"""Byte-level BPE vocabularies as `tokenizer.json`: tiktoken ranks, `vocab.json` + `merges.txt`, GGUF.

Enters: tokens, merges and the name of a splitting rule. Leaves: the `tokenizer.json` object. All of
them work on bytes, written as GPT-2's printable characters, so every text can be encoded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.merges import recover_merges
from pocketglm.errors import CheckpointError, UnsupportedModelError
from pocketglm.generate.detokenizer import byte_characters

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS_AND_SPACES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GROUPED_DIGITS = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{WORDS_AND_SPACES}"
"""Llama 3 and GLM-4: digits in groups of up to three."""
SINGLE_DIGITS = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{WORDS_AND_SPACES}"
"""Qwen: every digit alone."""


@dataclass(frozen=True)
class SplittingRule:
    """How a text is cut into words before merging; `pre_tokenizers` run one after the other."""

    pre_tokenizers: tuple[doc.Json, ...]
    ignore_merges: bool = False
    normal_form_c: bool = False

    @classmethod
    def of_pattern(cls, pattern: str, **flags: bool) -> SplittingRule:
        return cls((doc.split(pattern), doc.byte_level(use_regex=False)), **flags)


GPT2_RULE = SplittingRule((doc.byte_level(use_regex=True),))
DIGITS_RULE = SplittingRule(({"type": "Digits", "individual_digits": True}, doc.byte_level(use_regex=True)))
LLAMA3_RULE = SplittingRule.of_pattern(GROUPED_DIGITS, ignore_merges=True)
QWEN2_RULE = SplittingRule.of_pattern(SINGLE_DIGITS, normal_form_c=True)
DEFAULT_RULE = SplittingRule(
    (
        doc.split(r"[\p{P}\$\+<=>\^~\|]+"),
        doc.split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
        doc.split(r"\p{N}+"),
        doc.split(r"[0-9][0-9][0-9]"),
        doc.byte_level(use_regex=False),
    )
)
"""What llama.cpp does with a GGUF file that names no rule."""

GGUF_RULES: Mapping[str, SplittingRule] = {
    "default": DEFAULT_RULE,
    **dict.fromkeys(("gpt-2", "gpt2", "mpt", "olmo"), GPT2_RULE),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), DIGITS_RULE),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), LLAMA3_RULE),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), QWEN2_RULE),
    **dict.fromkeys(("chatglm-bpe", "glm4"), LLAMA3_RULE),
}
"""`tokenizer.ggml.pre` of a GGUF file: the splitting rule it stands for."""

CLASS_RULES: Mapping[str, SplittingRule] = {
    "GPT2Tokenizer": GPT2_RULE,
    "Qwen2Tokenizer": QWEN2_RULE,
}
"""`tokenizer_class` of a tokenizer_config.json, without `Fast`."""


def build_byte_level(
    vocab: Mapping[str, int],
    merges: Iterable[Sequence[str]],
    rule: SplittingRule,
    added: Iterable[doc.Json],
    post_processor: doc.Json | None = None,
) -> doc.Json:
    """The `tokenizer.json` object of a byte-level vocabulary."""
    return doc.document(
        doc.bpe_model(vocab, merges, ignore_merges=rule.ignore_merges),
        added,
        normalizer={"type": "NFC"} if rule.normal_form_c else None,
        pre_tokenizer=doc.sequence("pretokenizers", rule.pre_tokenizers),
        post_processor=post_processor,
        decoder=doc.byte_level(use_regex=False),
    )


def read_tiktoken(path: Path) -> dict[bytes, int]:
    """Ranks by token of a tiktoken file: a base64 token and its rank on each line."""
    ranks: dict[bytes, int] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error}", where=path) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise CheckpointError(
                f"line {number} is {line[:40]!r}, expected a base64 token and its rank", where=path
            ) from None
    if sorted(ranks.values()) != list(range(len(ranks))) or b"" in ranks:
        raise CheckpointError(f"the ranks of {len(ranks)} tokens are not 0 to {len(ranks) - 1}", where=path)
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise CheckpointError(f"lacks the byte {missing[0]:#04x} as a token", where=path)
    return ranks


def build_tiktoken(
    ranks: Mapping[bytes, int],
    pattern: str,
    appended: Sequence[str],
    post_processor: doc.Json | None = None,
) -> doc.Json:
    """The `tokenizer.json` object of tiktoken ranks; `appended` special tokens follow the last rank."""
    letters = byte_characters()

    def written(token: bytes) -> str:
        return "".join(map(letters.__getitem__, token))

    vocab = {written(token): rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])}
    merges = ((written(first), written(second)) for first, second in recover_merges(ranks))
    added = [doc.added_token(len(ranks) + i, text, special=True) for i, text in enumerate(appended)]
    rule = SplittingRule.of_pattern(pattern, ignore_merges=True)
    return build_byte_level(vocab, merges, rule, added, post_processor)


def read_merges(path: Path) -> list[list[str]]:
    """The pairs of a `merges.txt`."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=path) from None
    first = 1 if lines and lines[0].startswith("#version") else 0
    pairs = [line.rstrip("\r").split(" ") for line in lines[first:] if line.strip()]
    return checked_merges(pairs, path)


def checked_merges(pairs: list[list[str]], where: object) -> list[list[str]]:
    """Refuse a merge that is not two tokens."""
    for pair in pairs:
        if len(pair) != 2:
            raise CheckpointError(f"merge {' '.join(pair)!r} is not two tokens", where=where)
    return pairs


def read_json(path: Path) -> Any:
    """A JSON side file, or None where it is absent."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read as JSON: {error}", where=path) from None


def build_vocab_and_merges(directory: Path) -> doc.Json:
    """`vocab.json`, `merges.txt` and the files beside them (GPT-2, Qwen)."""
    path = directory / "vocab.json"
    vocab = read_json(path)
    if not isinstance(vocab, dict) or not all(type(i) is int and i >= 0 for i in vocab.values()):
        raise CheckpointError("expected an object of tokens and their ids", where=path)
    settings = read_json(directory / "tokenizer_config.json") or {}
    name = str(settings.get("tokenizer_class", "GPT2Tokenizer")).removesuffix("Fast")
    rule = CLASS_RULES.get(name)
    if rule is None:
        raise UnsupportedModelError(
            f"vocab.json of a {name} is not supported, only {', '.join(CLASS_RULES)}",
            where=directory,
            hint="save the tokenizer as tokenizer.json with the transformers library",
        )
    if settings.get("add_prefix_space"):
        raise UnsupportedModelError(
            "add_prefix_space is not supported", where=directory / "tokenizer_config.json"
        )
    return build_byte_level(
        vocab, read_merges(directory / "merges.txt"), rule, _added_tokens(directory, vocab, settings)
    )


def _added_tokens(directory: Path, vocab: Mapping[str, int], settings: Mapping[str, Any]) -> list[doc.Json]:
    """Tokens added to the vocabulary: those in tokenizer_config.json say more than added_tokens.json."""
    ids: dict[str, int] = dict(read_json(directory / "added_tokens.json") or {})
    special = _special_texts(read_json(directory / "special_tokens_map.json") or {}) | _special_texts(
        settings
    )
    ids.update({text: vocab[text] for text in special if text in vocab})
    for number, entry in dict(settings.get("added_tokens_decoder") or {}).items():
        ids[entry["content"]] = int(number)
        (special.add if entry.get("special") else special.discard)(entry["content"])
    return [doc.added_token(i, text, special=text in special) for text, i in ids.items()]


def _special_texts(settings: Mapping[str, Any]) -> set[str]:
    """Texts of the tokens named by `eos_token`, `additional_special_tokens` and the like."""
    found: set[str] = set()
    for name, value in settings.items():
        if not name.endswith(("_token", "special_tokens")):
            continue
        for entry in value if isinstance(value, list) else [value]:
            text = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(text, str) and text:
                found.add(text)
    return found
