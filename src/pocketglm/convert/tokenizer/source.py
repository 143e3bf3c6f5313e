"""Which of a checkpoint's files its tokenizer comes from.

Enters: a checkpoint and its architecture. Leaves: the text of `tokenizer.json`, whole or slim, or None
where the checkpoint has no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketglm.architecture.model import Architecture
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import (
    build_tiktoken,
    build_vocab_and_merges,
    read_json,
    read_tiktoken,
)
from pocketglm.convert.tokenizer.gguf_vocabulary import PREFIX, build_gguf
from pocketglm.convert.tokenizer.sentencepiece_model import (
    SentencePieceModel,
    Surroundings,
    build_sentencepiece,
    read_sentencepiece,
)
from pocketglm.convert.tokenizer.slim import merge_pairs, slim_tokenizer
from pocketglm.errors import CheckpointError, PackageError, UnsupportedModelError
from pocketglm.generate.tokenizer import Tokenizer

ADDED_FIELDS = ("id", "content", "special")


def convert_tokenizer(
    checkpoint: Checkpoint, architecture: Architecture, kept_rows: Sequence[int] | None = None
) -> str | None:
    """The package's `tokenizer.json`, or None where the checkpoint has no tokenizer.

    `kept_rows` (sorted, and closed by `close_kept_tokens`) makes a tokenizer of these tokens alone, new
    ids in their order. They count as the tokenizer without `kept_rows` does: after the rows that the
    architecture itself drops. Raises `CheckpointError` and `UnsupportedModelError`.
    """
    where = checkpoint.path if checkpoint.format == "gguf" else checkpoint.directory
    tokenizer = _build(checkpoint, architecture.tokenizer, where)
    if tokenizer is None:
        return None
    tokenizer = _within_rows(tokenizer, architecture.spec.vocab_size, where)
    if kept_rows is not None:
        tokenizer = slim_tokenizer(tokenizer, kept_rows)
    text = doc.to_text(_place_added(tokenizer))
    _check_ids(text, tokenizer, where)
    return text


def _build(checkpoint: Checkpoint, quirks: TokenizerQuirks, where: Path) -> doc.Json | None:
    if checkpoint.format == "gguf":
        return build_gguf(checkpoint.metadata, where) if PREFIX + "model" in checkpoint.metadata else None
    directory = checkpoint.directory
    named = directory / quirks.file if quirks.file else None
    if named is not None and named.is_file():
        return _build_named(quirks, named)
    if (directory / "tokenizer.json").is_file():
        return read_tokenizer_json(directory / "tokenizer.json")
    if quirks.kind == "files" and (directory / "tokenizer.model").is_file():
        return _build_plain_sentencepiece(directory)
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return build_vocab_and_merges(directory)
    return None


def _build_named(quirks: TokenizerQuirks, path: Path) -> doc.Json:
    """The vocabulary file that the family names, with the family's special tokens."""
    if quirks.kind == "sentencepiece":
        around = Surroundings(
            appended=quirks.appended_tokens,
            special=frozenset(quirks.special_pieces),
            prefix=quirks.prefix_tokens,
            suffix=quirks.suffix_tokens,
            replacements=quirks.replacements,
        )
        return build_sentencepiece(read_sentencepiece(path), around, path)
    if quirks.kind == "tiktoken" and quirks.pattern is not None:
        ranks = read_tiktoken(path)
        ids = {text: len(ranks) + number for number, text in enumerate(quirks.appended_tokens)}
        prefix = [(text, ids[text]) for text in quirks.prefix_tokens]
        suffix = [(text, ids[text]) for text in quirks.suffix_tokens]
        return build_tiktoken(ranks, quirks.pattern, quirks.appended_tokens, doc.surround(prefix, suffix))
    raise UnsupportedModelError(f"a tokenizer of the kind {quirks.kind!r} has no file to name", where=path)


def _build_plain_sentencepiece(directory: Path) -> doc.Json:
    """A `tokenizer.model` without a family's rules: its `<s>` first, unless a setting says no."""
    path = directory / "tokenizer.model"
    settings = _settings(directory)
    model = read_sentencepiece(path)
    prefix = _begin(model) if settings.get("add_bos_token", True) else ()
    ids = {piece.text: number for number, piece in enumerate(model.pieces)}
    extra = _appended_in_settings(settings, len(model.pieces))
    special = {text for text in _decoder_entries(settings, special=True) if text in ids}
    return build_sentencepiece(
        model, Surroundings(appended=extra, special=frozenset(special), prefix=prefix), path
    )


def _begin(model: SentencePieceModel) -> tuple[str, ...]:
    return (model.pieces[model.bos_id].text,) if 0 <= model.bos_id < len(model.pieces) else ()


def _settings(directory: Path) -> dict[str, Any]:
    settings = read_json(directory / "tokenizer_config.json")
    return settings if isinstance(settings, dict) else {}


def _decoder_entries(settings: dict[str, Any], *, special: bool) -> dict[str, int]:
    entries = settings.get("added_tokens_decoder") or {}
    return {e["content"]: int(i) for i, e in entries.items() if bool(e.get("special")) == special}


def _appended_in_settings(settings: dict[str, Any], count: int) -> tuple[str, ...]:
    """Special tokens that tokenizer_config.json puts directly after the last piece."""
    ids = _decoder_entries(settings, special=True) | _decoder_entries(settings, special=False)
    by_id = {i: text for text, i in ids.items()}
    extra: list[str] = []
    while count + len(extra) in by_id:
        extra.append(by_id[count + len(extra)])
    return tuple(extra)


def read_tokenizer_json(path: Path) -> doc.Json:
    """A checkpoint's own `tokenizer.json`, checked, without truncation and padding."""
    tokenizer = read_json(path)
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    kind = model.get("type") if isinstance(model, dict) else None
    if isinstance(model, dict) and kind is None and "merges" in model:
        kind = model["type"] = "BPE"  # older files do not say it
    if kind not in ("BPE", "Unigram"):
        raise UnsupportedModelError(f"a tokenizer model of the type {kind!r} is not supported", where=path)
    tokenizer = {**tokenizer, "truncation": None, "padding": None}
    tokenizer.setdefault("added_tokens", [])
    try:
        Tokenizer.from_json(doc.to_text(tokenizer), str(path))
    except PackageError as error:
        raise CheckpointError(error.message, where=path) from None
    if any(field not in token for token in tokenizer["added_tokens"] for field in ADDED_FIELDS):
        raise CheckpointError(f"an added token lacks one of {', '.join(ADDED_FIELDS)}", where=path)
    if kind == "BPE":
        merge_pairs(tokenizer["model"])
    return tokenizer


def _within_rows(tokenizer: doc.Json, rows: int, where: Path) -> doc.Json:
    """Leave out added tokens past the model's last row: no such token was ever trained.

    Raises `CheckpointError` where the vocabulary itself is larger than the model.
    """
    model = tokenizer["model"]
    vocab = model["vocab"]
    largest = len(vocab) - 1 if model["type"] == "Unigram" else max(vocab.values(), default=0)
    added_texts = {token["content"] for token in tokenizer["added_tokens"]}
    if largest >= rows and model["type"] == "BPE":
        vocab = {t: i for t, i in vocab.items() if i < rows or t not in added_texts}
        model, largest = {**model, "vocab": vocab}, max(vocab.values(), default=0)
    if largest >= rows:
        raise CheckpointError(
            f"the tokenizer has the id {largest}, but the model has {rows} rows", where=where
        )
    added = [token for token in tokenizer["added_tokens"] if token["id"] < rows]
    return {**tokenizer, "model": model, "added_tokens": added}


def _place_added(tokenizer: doc.Json) -> doc.Json:
    """Put added tokens into the byte-pair vocabulary where their ids do not simply follow it.

    The library numbers added tokens itself, without gaps, unless the vocabulary has them.
    """
    model = tokenizer["model"]
    vocab = model["vocab"]
    outside = [
        t["id"] for t in tokenizer["added_tokens"] if model["type"] != "BPE" or t["content"] not in vocab
    ]
    if model["type"] != "BPE" or outside == list(range(len(vocab), len(vocab) + len(outside))):
        return tokenizer
    placed = {**vocab, **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    return {**tokenizer, "model": {**model, "vocab": placed}}


def _check_ids(text: str, tokenizer: doc.Json, where: Path) -> None:
    """The library must number every added token as the file says."""
    library = Tokenizer.from_json(text, str(where))
    for token in tokenizer["added_tokens"]:
        found = library.token_id(token["content"])
        if found != token["id"]:
            raise CheckpointError(
                f"added token {token['content']!r} would get the id {found}, expected {token['id']}",
                where=where,
            )
