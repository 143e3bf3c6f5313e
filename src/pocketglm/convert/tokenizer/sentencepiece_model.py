"""SentencePiece models (BPE and unigram) as `tokenizer.json`.

Enters: a `*.model` file, or the same lists from GGUF metadata. Leaves: a tokenizer with exactly
SentencePiece's ids for plain text. What differs on purpose:

- every run of text between special tokens is encoded as SentencePiece encodes it alone;
- a text that is nothing but one user-defined symbol gets no dummy prefix;
- a text that spells out a control piece (`</s>`) is encoded as text, cut after its first character,
  as SentencePiece would where no piece spans the cut.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.merges import recover_merges
from pocketglm.errors import CheckpointError, UnsupportedModelError

SPACE = "▁"
"""U+2581, which stands for a blank inside pieces."""

MAX_BLANKS = 1 << 16
"""More than any text starts with: SentencePiece drops all of them where it removes extra blanks."""

CLUSTER_END = "\U000e0002"
TEXT_START = "\U000e0003"
"""Unassigned code points of the grapheme class Control, which no text has, as marks between two steps."""

_LONE_CHARACTERS = (
    r"\x00-\x7f\u3001-\u3029\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e"
)
"""The most used characters among those that never join the cluster of the one before."""


class PieceKind(IntEnum):
    """SentencePiece's piece types, by their number in the file; GGUF uses the same."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class SentencePieceModel:
    """What decides how a SentencePiece model encodes and decodes."""

    algorithm: Literal["bpe", "unigram"]
    pieces: tuple[Piece, ...]
    byte_fallback: bool
    dummy_prefix: bool
    remove_extra_spaces: bool
    characters_map: bytes = b""  # precompiled normalization, empty for none
    bos_id: int = -1


@dataclass(frozen=True)
class Surroundings:
    """What a family adds to the pieces: see `TokenizerQuirks`."""

    appended: tuple[str, ...] = ()
    special: frozenset[str] = frozenset()
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Parse a `.model` file. Raises `CheckpointError` for damage, `UnsupportedModelError` by setting."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise CheckpointError(f"is not a SentencePiece model: {error}", where=path) from None
    if not proto.pieces:
        raise CheckpointError("is not a SentencePiece model: it has no pieces", where=path)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    algorithm = {1: "unigram", 2: "bpe"}.get(trainer.model_type)
    if algorithm is None:
        raise UnsupportedModelError("only BPE and unigram SentencePiece models are supported", where=path)
    if trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        raise UnsupportedModelError(
            "SentencePiece blanks as suffixes, or not escaped, are not supported", where=path
        )
    if proto.denormalizer_spec.precompiled_charsmap:
        raise UnsupportedModelError("SentencePiece denormalization is not supported", where=path)
    return SentencePieceModel(
        algorithm=algorithm,  # type: ignore[arg-type]
        pieces=tuple(Piece(piece.piece, piece.score, PieceKind(piece.type)) for piece in proto.pieces),
        byte_fallback=trainer.byte_fallback,
        dummy_prefix=normalizer.add_dummy_prefix,
        remove_extra_spaces=normalizer.remove_extra_whitespaces,
        characters_map=normalizer.precompiled_charsmap,
        bos_id=trainer.bos_id,
    )


def build_sentencepiece(model: SentencePieceModel, around: Surroundings, where: object) -> doc.Json:
    """The `tokenizer.json` object of a SentencePiece model."""
    pieces = [*model.pieces, *(Piece(text, 0.0, PieceKind.CONTROL) for text in around.appended)]
    vocab = doc.unique_ids([piece.text for piece in pieces], where)
    special = {p.text for p in pieces if p.kind in (PieceKind.CONTROL, PieceKind.UNKNOWN)} | around.special
    symbols = [p.text for p in pieces if p.kind is PieceKind.USER_DEFINED and p.text not in special]
    build_model = _bpe if model.algorithm == "bpe" else _unigram
    added = [
        *(doc.added_token(vocab[text], text, special=True) for text in special),
        *(doc.added_token(vocab[text], text, special=False, normalized=True) for text in symbols),
    ]
    return doc.document(
        build_model(model, vocab, special, where),
        added,
        normalizer=doc.sequence("normalizers", _normalizers(model, around, symbols)),
        pre_tokenizer=doc.split(_inside_special(model, special), "MergedWithPrevious")
        if model.algorithm == "unigram"
        else None,
        post_processor=doc.surround(
            _with_ids(around.prefix, vocab, where), _with_ids(around.suffix, vocab, where)
        ),
        decoder=doc.sequence("decoders", _decoders(model, around)),
    )


def _bpe(model: SentencePieceModel, vocab: dict[str, int], special: set[str], where: object) -> doc.Json:
    """Merges follow from the scores: the highest merges first."""
    mergeable = {
        p.text: -p.score for p in model.pieces if p.kind is PieceKind.NORMAL and p.text not in special
    }
    unused = {p.text: -p.score for p in model.pieces if p.kind is PieceKind.UNUSED}
    if unused and any(
        first in mergeable and second in mergeable
        for first, second in recover_merges(mergeable | unused)
        if first + second in unused
    ):
        raise UnsupportedModelError(
            "unused pieces inside a SentencePiece BPE model are not supported", where=where
        )
    return doc.bpe_model(
        vocab,
        recover_merges(mergeable),
        unk_token=_unknown(model),
        byte_fallback=model.byte_fallback,
    )


def _unigram(model: SentencePieceModel, vocab: dict[str, int], special: set[str], where: object) -> doc.Json:
    """Pieces with their log probabilities; symbols are found before the model sees the text."""
    if any(p.kind is PieceKind.UNUSED for p in model.pieces):
        raise UnsupportedModelError(
            "unused pieces in a SentencePiece unigram model are not supported", where=where
        )
    scores = {p.text: p.score for p in model.pieces}
    unknown = _unknown(model)
    return {
        "type": "Unigram",
        "unk_id": None if unknown is None else vocab[unknown],
        "vocab": [[text, float(scores.get(text, 0.0))] for text in vocab],
        "byte_fallback": model.byte_fallback,
    }


def _unknown(model: SentencePieceModel) -> str | None:
    return next((p.text for p in model.pieces if p.kind is PieceKind.UNKNOWN), None)


def _inside_special(model: SentencePieceModel, special: set[str]) -> str:
    """Cuts a spelled-out control or byte piece after its first character, so that it is never matched.

    SentencePiece keeps those pieces out of its search; the unigram model of `tokenizer.json` cannot.
    """
    hidden = special | {p.text for p in model.pieces if p.kind is PieceKind.BYTE}
    by_tail: dict[str, list[str]] = {}
    for text in sorted(hidden):
        if len(text) > 1:
            by_tail.setdefault(text[0], []).append(re.escape(text[1:]))
    return "|".join(f"{re.escape(head)}(?={'|'.join(tails)})" for head, tails in by_tail.items())


def _normalizers(model: SentencePieceModel, around: Surroundings, symbols: Sequence[str]) -> list[doc.Json]:
    """SentencePiece's steps before its search, the family's replacements first.

    The library normalizes the symbols' own texts too before it looks for them in a normalized text.
    They must not get the dummy prefix, so it is decided on before anything becomes a symbol: a mark
    stands for it in between.
    """
    marked = model.dummy_prefix and bool(symbols)
    alone = "|".join(re.escape(text) for text in symbols)
    steps: list[doc.Json] = []
    if marked:
        steps.append({"type": "Prepend", "prepend": TEXT_START})  # to any text but the empty one
        steps.append(doc.replace_regex(rf"\A{TEXT_START}(?=(?:{alone})\z)", ""))
    steps += [doc.replace(old, new) for old, new in around.replacements]
    steps += _character_normalizers(model.characters_map) if model.characters_map else []
    if model.remove_extra_spaces:
        blanks = rf"(?<=\A{TEXT_START}) +|\A +|[ {SPACE}]+\z"
        steps += [doc.replace_regex(blanks, ""), doc.replace_regex(" {2,}", " ")]
    if marked:
        steps += [doc.replace_regex(rf"\A{TEXT_START}(?=[\s\S])", SPACE), doc.replace(TEXT_START, "")]
    elif model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    return [*steps, doc.replace(" ", SPACE)]


def _character_normalizers(characters_map: bytes) -> list[doc.Json]:
    """SentencePiece's precompiled NFKC rules.

    The library applies the rules to whole grapheme clusters and loses characters where a rule covers
    only the cluster's start. So canonical sequences are composed first, then a mark that always ends a
    cluster is put between all characters that could join one, and taken out afterwards.
    """
    return [
        {"type": "NFC"},
        doc.replace_regex(rf"(?<=\r)(?=\n)|(?<=[\s\S])(?=[^{_LONE_CHARACTERS}])", CLUSTER_END),
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(characters_map).decode("ascii")},
        doc.replace(CLUSTER_END, ""),
        {"type": "NFC"},
    ]


def _decoders(model: SentencePieceModel, around: Surroundings) -> list[doc.Json]:
    steps = [doc.replace(SPACE, " "), *(doc.replace(new, old) for old, new in reversed(around.replacements))]
    steps += [{"type": "ByteFallback"}] if model.byte_fallback else []
    steps.append({"type": "Fuse"})
    blanks = MAX_BLANKS if model.remove_extra_spaces else int(model.dummy_prefix)
    steps += [{"type": "Strip", "content": " ", "start": blanks, "stop": 0}] if blanks else []
    return steps


def _with_ids(tokens: Sequence[str], vocab: dict[str, int], where: Any) -> list[tuple[str, int]]:
    missing = [token for token in tokens if token not in vocab]
    if missing:
        raise CheckpointError(f"the vocabulary lacks {', '.join(missing)}", where=where)
    return [(token, vocab[token]) for token in tokens]
