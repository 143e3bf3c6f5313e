"""The vocabulary inside a GGUF file as `tokenizer.json`.

Enters: the file's `tokenizer.ggml.*` metadata. Leaves: the `tokenizer.json` object. `llama` is
SentencePiece BPE with scores, `gpt2` is byte-level BPE with merges and a named splitting rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import GGUF_RULES, build_byte_level, checked_merges
from pocketglm.convert.tokenizer.sentencepiece_model import (
    Piece,
    PieceKind,
    SentencePieceModel,
    Surroundings,
    build_sentencepiece,
)
from pocketglm.errors import CheckpointError, UnsupportedModelError

PREFIX = "tokenizer.ggml."


def build_gguf(metadata: Mapping[str, Any], where: object) -> doc.Json:
    """The `tokenizer.json` object. Raises `UnsupportedModelError` naming an unknown model or rule."""
    kind = metadata.get(PREFIX + "model")
    if kind == "gpt2":
        return _byte_level(metadata, where)
    if kind == "llama":
        return _sentencepiece(metadata, where)
    raise UnsupportedModelError(
        f"GGUF tokenizer {kind!r} is not supported, only 'llama' and 'gpt2'", where=where
    )


def _byte_level(metadata: Mapping[str, Any], where: object) -> doc.Json:
    tokens, kinds = _tokens(metadata, where)
    vocab = doc.unique_ids(tokens, where)
    name = metadata.get(PREFIX + "pre", "default")
    if name not in GGUF_RULES:
        raise UnsupportedModelError(
            f"splitting rule {name!r} ({PREFIX}pre) is not supported, only {', '.join(GGUF_RULES)}",
            where=where,
        )
    pairs = [str(merge).split(" ") for merge in _list(metadata, "merges", where)]
    prefix, suffix = _ends(metadata, tokens, bos_by_default=False)
    return build_byte_level(
        vocab,
        checked_merges(pairs, where),
        GGUF_RULES[name],
        _added(tokens, kinds),
        doc.surround(prefix, suffix),
    )


def _sentencepiece(metadata: Mapping[str, Any], where: object) -> doc.Json:
    tokens, kinds = _tokens(metadata, where)
    scores = _list(metadata, "scores", where)
    if len(scores) != len(tokens):
        raise CheckpointError(f"{len(tokens)} tokens but {len(scores)} scores", where=where)
    pieces = tuple(
        Piece(text, float(score), kind) for text, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    prefix, suffix = _ends(metadata, tokens, bos_by_default=True)
    model = SentencePieceModel(
        algorithm="bpe",
        pieces=pieces,
        byte_fallback=PieceKind.BYTE in kinds,
        dummy_prefix=bool(metadata.get(PREFIX + "add_space_prefix", True)),
        remove_extra_spaces=bool(metadata.get(PREFIX + "remove_extra_whitespaces", False)),
        characters_map=bytes(metadata.get(PREFIX + "precompiled_charsmap", b"")),
    )
    around = Surroundings(prefix=tuple(text for text, _ in prefix), suffix=tuple(text for text, _ in suffix))
    return build_sentencepiece(model, around, where)


def _tokens(metadata: Mapping[str, Any], where: object) -> tuple[list[str], list[PieceKind]]:
    tokens = [str(token) for token in _list(metadata, "tokens", where)]
    numbers = metadata.get(PREFIX + "token_type", [PieceKind.NORMAL] * len(tokens))
    try:
        kinds = [PieceKind(int(number)) for number in numbers]
    except ValueError as error:
        raise CheckpointError(f"{PREFIX}token_type: {error}", where=where) from None
    if len(kinds) != len(tokens):
        raise CheckpointError(f"{len(tokens)} tokens but {len(kinds)} token types", where=where)
    return tokens, kinds


def _list(metadata: Mapping[str, Any], name: str, where: object) -> Sequence[Any]:
    value = metadata.get(PREFIX + name)
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        raise CheckpointError(f"lacks the list {PREFIX}{name}", where=where)
    return value  # type: ignore[no-any-return]


def _added(tokens: Sequence[str], kinds: Sequence[PieceKind]) -> list[doc.Json]:
    special = {PieceKind.CONTROL: True, PieceKind.UNKNOWN: True, PieceKind.USER_DEFINED: False}
    return [
        doc.added_token(number, text, special=special[kind])
        for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in special
    ]


def _ends(
    metadata: Mapping[str, Any], tokens: Sequence[str], *, bos_by_default: bool
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Tokens before and after a bare prompt: as the file says, else as llama.cpp does."""

    def end(name: str, default: bool) -> list[tuple[str, int]]:
        number = metadata.get(f"{PREFIX}{name}_token_id")
        if not metadata.get(f"{PREFIX}add_{name}_token", default) or number is None:
            return []
        return [(tokens[int(number)], int(number))] if 0 <= int(number) < len(tokens) else []

    return end("bos", bos_by_default), end("eos", False)
