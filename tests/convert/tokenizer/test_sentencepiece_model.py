"""SentencePiece models against the sentencepiece library."""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings

from convert.tokenizer.samples import MIXED_TEXTS, TEXTS, random_texts, train_sentencepiece
from convert.tokenizer.vocabularies import convert, upstream
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.sentencepiece_model import (
    Piece,
    PieceKind,
    SentencePieceModel,
    Surroundings,
    build_sentencepiece,
    read_sentencepiece,
)
from pocketglm.errors import CheckpointError, UnsupportedModelError
from pocketglm.generate.tokenizer import Tokenizer

SYMBOLS = ["<n>", "<|tab|>", *(f"<|blank_{n}|>" for n in range(2, 81))]
MASKS = ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"]
REPLACEMENTS = (
    ("\n", "<n>"),
    ("\t", "<|tab|>"),
    *((" " * n, f"<|blank_{n}|>") for n in range(80, 1, -1)),
)


@pytest.mark.parametrize("name", ["chatglm3-tokenizer.model", "stories260k/tokenizer.model"])
def test_real_models(shared_data: Path, name: str) -> None:
    path = shared_data / name
    ours, theirs = convert(path), upstream(path)
    for text in [*MIXED_TEXTS, *random_texts(300)]:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids)


def test_chatglm3_brings_every_text_back(shared_data: Path) -> None:
    tokenizer = convert(shared_data / "chatglm3-tokenizer.model")
    for text in [*MIXED_TEXTS, *random_texts(300, seed=1)]:
        expected = text.replace("▁", " ")  # the one character that SentencePiece gives another meaning
        assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_chatglm3_special_ids(shared_data: Path) -> None:
    appended = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>")
    around = Surroundings(appended=appended, prefix=("[gMASK]", "<sop>"))
    tokenizer = convert(shared_data / "chatglm3-tokenizer.model", around)
    assert tokenizer.encode("你好", prompt=True) == [64790, 64792, 36474, 54591]
    assert tokenizer.encode("<|user|>\n 你好<|assistant|>", allow_special=True) == [
        64795,
        30910,
        13,
        36474,
        54591,
        64796,
    ]
    assert not set(tokenizer.encode("<|user|>[gMASK]<sop>")) & set(range(64789, 64797))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def identity_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with byte fallback and ChatGLM-6B's symbols, which changes no character."""
    return train_sentencepiece(
        tmp_path_factory.mktemp("model") / "ice_text.model",
        request.param,
        900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=[*SYMBOLS, *MASKS],
        character_coverage=0.99,
    )


@settings(deadline=None)
@given(text=TEXTS)
def test_any_text(identity_model: Path, text: str) -> None:
    """Dashes and blanks in a row have segmentations of equal score, where float32 rounding decides."""
    ours, theirs = _cached(identity_model)
    if text in SYMBOLS or text in MASKS or _has_tie(text):
        return
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(ours.encode(text)) == text.replace("▁", " ")


def _has_tie(text: str) -> bool:
    return any(run in text for run in ("  ", "--", "▁▁", " ▁", "▁ "))


_made: dict[Path, tuple[Tokenizer, sentencepiece.SentencePieceProcessor]] = {}


def _cached(path: Path) -> tuple[Tokenizer, sentencepiece.SentencePieceProcessor]:
    if path not in _made:
        _made[path] = convert(path), upstream(path)
    return _made[path]


def test_chatglm_6b_rules(identity_model: Path) -> None:
    """Line breaks, tabs and runs of blanks become symbols, `[gMASK] <sop>` ends a prompt."""
    around = Surroundings(special=frozenset(MASKS), suffix=("[gMASK]", "<sop>"), replacements=REPLACEMENTS)
    ours, theirs = convert(identity_model, around), upstream(identity_model)
    ends = [theirs.piece_to_id("[gMASK]"), theirs.piece_to_id("<sop>")]
    for text in [*MIXED_TEXTS, *random_texts(200)]:
        if any(mask in text for mask in MASKS) or "--" in text or "==" in text:
            continue
        prepared = text
        for old, new in REPLACEMENTS:
            prepared = prepared.replace(old, new)
        ids = theirs.encode(prepared)
        assert ours.encode(text, prompt=True) == ids + ends
        assert ours.decode(ids + ends) == text.replace("▁", " ").replace("<n>", "\n")
    assert ours.encode("一[gMASK]<sop>", allow_special=True)[-2:] == ends
    assert not {ours.token_id(mask) for mask in MASKS} & set(ours.encode("".join(MASKS)))


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf"])
@pytest.mark.parametrize("extra", [True, False])
def test_character_maps(tmp_path: Path, rule: str, extra: bool) -> None:
    """Exact on composed text; marks out of canonical order are put in order first."""
    path = train_sentencepiece(
        tmp_path / "m.model",
        "bpe",
        700,
        byte_fallback=True,
        normalization_rule_name=rule,
        remove_extra_whitespaces=extra,
    )
    ours, theirs = convert(path), upstream(path)
    for text in [*MIXED_TEXTS[:-1], *random_texts(150)]:
        composed = unicodedata.normalize("NFC", text)
        assert ours.encode(composed) == theirs.encode(composed)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_without_byte_fallback_and_prefix(tmp_path: Path, kind: str) -> None:
    path = train_sentencepiece(
        tmp_path / "m.model", kind, 500, normalization_rule_name="identity", add_dummy_prefix=False
    )
    ours, theirs = convert(path), upstream(path)
    for text in [t for t in [*MIXED_TEXTS, *random_texts(100)] if "--" not in t and "==" not in t]:
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_spelled_out_control_pieces_stay_text(tmp_path: Path, kind: str) -> None:
    path = train_sentencepiece(
        tmp_path / "m.model", kind, 800, byte_fallback=True, normalization_rule_name="identity"
    )
    tokenizer = convert(path)
    text = "a</s>b<unk><0x41> <s>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not tokenizer.special_ids & set(tokenizer.encode(text))
    assert tokenizer.token_id("</s>") in tokenizer.encode(text, allow_special=True)


def test_a_symbol_alone_gets_no_dummy_prefix(identity_model: Path) -> None:
    tokenizer, theirs = _cached(identity_model)
    assert tokenizer.encode("<n>") == theirs.encode("<n>")[1:]


@pytest.mark.parametrize("kind", ["word", "char"])
def test_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    path = train_sentencepiece(tmp_path / "m.model", kind, 500, character_coverage=1.0)
    with pytest.raises(UnsupportedModelError, match="only BPE and unigram"):
        read_sentencepiece(path)


def test_blanks_as_suffixes_are_refused(tmp_path: Path) -> None:
    path = train_sentencepiece(tmp_path / "m.model", "bpe", 500, treat_whitespace_as_suffix=True)
    with pytest.raises(UnsupportedModelError, match="suffixes"):
        read_sentencepiece(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"version https://git-lfs.github.com/spec/v1\n"])
def test_damaged_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not a SentencePiece model"):
        read_sentencepiece(path)


def test_unused_pieces_are_refused_where_they_matter(identity_model: Path) -> None:
    model = read_sentencepiece(identity_model)
    number = next(i for i, p in enumerate(model.pieces) if p.kind is PieceKind.NORMAL and len(p.text) == 2)
    pieces = list(model.pieces)
    pieces[number] = Piece(pieces[number].text, pieces[number].score, PieceKind.UNUSED)
    with pytest.raises(UnsupportedModelError, match="unused pieces"):
        build_sentencepiece(dataclasses.replace(model, pieces=tuple(pieces)), Surroundings(), "here")


def test_a_text_that_stands_twice_is_refused(identity_model: Path) -> None:
    with pytest.raises(CheckpointError, match="'<n>' stands twice"):
        build_sentencepiece(read_sentencepiece(identity_model), Surroundings(appended=("<n>",)), "here")


def test_a_missing_prefix_token_is_refused(identity_model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lacks \[nothing\]"):
        build_sentencepiece(read_sentencepiece(identity_model), Surroundings(prefix=("[nothing]",)), "here")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_chatglm_6b_rules_with_a_character_map(tmp_path: Path, kind: str) -> None:
    """Its vocabulary has no full-width comma: the real model changes characters, as this one does."""
    path = train_sentencepiece(
        tmp_path / "m.model",
        kind,
        900,
        byte_fallback=True,
        user_defined_symbols=[*SYMBOLS, *MASKS],
        character_coverage=0.99,
    )
    around = Surroundings(special=frozenset(MASKS), replacements=REPLACEMENTS)
    ours, theirs = convert(path, around), upstream(path)
    for text in [*MIXED_TEXTS[:-1], *random_texts(200), "\n", "\t", "  ", "\n你好", " \n"]:
        if any(mask in text for mask in MASKS) or "--" in text or "==" in text:
            continue
        prepared = composed = unicodedata.normalize("NFC", text)
        for old, new in REPLACEMENTS:
            prepared = prepared.replace(old, new)
        assert ours.encode(composed) == theirs.encode(prepared)
    assert ours.decode(ours.encode("你好，世界")) == "你好,世界"


def test_chatglm_6b_vocabulary(shared_data: Path) -> None:
    """The real 130344 pieces, with made-up scores that prefer few pieces: the ids are the real ones."""
    lines = (
        (shared_data / "chatglm-6b-slim-vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    )
    control = {"<s>", "</s>", "<pad>"}

    def kind(text: str) -> PieceKind:
        if text.startswith("<0x"):
            return PieceKind.BYTE
        if text in control:
            return PieceKind.CONTROL
        if text in SYMBOLS or text in MASKS:
            return PieceKind.USER_DEFINED
        return PieceKind.UNKNOWN if text == "<unk>" else PieceKind.NORMAL

    pieces = tuple(Piece(text, -10 - i * 1e-5, kind(text)) for i, text in enumerate(lines))
    model = SentencePieceModel(
        "unigram", pieces, byte_fallback=True, dummy_prefix=True, remove_extra_spaces=False
    )
    around = Surroundings(special=frozenset(MASKS), suffix=("[gMASK]", "<sop>"), replacements=REPLACEMENTS)
    tokenizer = Tokenizer.from_json(doc.to_text(build_sentencepiece(model, around, "slim")))
    assert tokenizer.vocab_size == len(lines) == 130344
    assert tokenizer.encode("你好", prompt=True) == [5, 74874, 130001, 130004]
    assert tokenizer.encode("\n\t" + " " * 2 + "a" + " " * 80)[1:4] == [4, 130008, 130009]
    assert tokenizer.encode("a" + " " * 80)[-1] == 130087
    assert tokenizer.encode("\U000f0000")[1:] == [130088 + byte for byte in "\U000f0000".encode()]
    for text in [t for t in MIXED_TEXTS if "<n>" not in t]:
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")
