"""Byte-level vocabularies against tiktoken, transformers and their own definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings

from convert.tokenizer.samples import MIXED_TEXTS, TEXTS, random_texts
from convert.tokenizer.vocabularies import PATTERNS, trained, trained_ranks, write_ranks, write_slow_files
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import (
    DIGITS_RULE,
    GROUPED_DIGITS,
    QWEN2_RULE,
    SINGLE_DIGITS,
    build_byte_level,
    build_tiktoken,
    build_vocab_and_merges,
    read_merges,
    read_tiktoken,
)
from pocketglm.errors import CheckpointError, UnsupportedModelError
from pocketglm.generate.detokenizer import byte_characters
from pocketglm.generate.tokenizer import Tokenizer

SPECIAL = ("<|endoftext|>", "[MASK]", "[gMASK]", "<sop>", "<|user|>")


RANKS = {name: trained_ranks(pattern) for name, pattern in PATTERNS.items()}
OURS = {
    name: Tokenizer.from_json(doc.to_text(build_tiktoken(RANKS[name], pattern, SPECIAL)))
    for name, pattern in PATTERNS.items()
}
THEIRS = {
    name: tiktoken.Encoding(
        name,
        pat_str=pattern,
        mergeable_ranks=RANKS[name],
        special_tokens={text: len(RANKS[name]) + i for i, text in enumerate(SPECIAL)},
    )
    for name, pattern in PATTERNS.items()
}


@pytest.mark.parametrize("name", PATTERNS)
def test_tiktoken_mixed_texts(name: str, tmp_path: Path) -> None:
    assert read_tiktoken(write_ranks(tmp_path / "tokenizer.model", RANKS[name])) == RANKS[name]
    for text in [*MIXED_TEXTS, *random_texts(300)]:
        ids = THEIRS[name].encode(text, disallowed_special=())
        assert OURS[name].encode(text) == ids
        assert OURS[name].decode(ids) == text
        special = THEIRS[name].encode(text, allowed_special="all")
        assert OURS[name].encode(text, allow_special=True) == special


@pytest.mark.parametrize("name", PATTERNS)
@settings(deadline=None)
@given(text=TEXTS)
def test_tiktoken_any_text(name: str, text: str) -> None:
    assert OURS[name].encode(text) == THEIRS[name].encode(text, disallowed_special=())


def test_tiktoken_tokens_that_only_whole_words_reach() -> None:
    """tiktoken takes a word that is a token as it is, even where merging would not lead there."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"abcd": 257}
    theirs = tiktoken.Encoding("x", pat_str=GROUPED_DIGITS, mergeable_ranks=ranks, special_tokens={})
    ours = Tokenizer.from_json(doc.to_text(build_tiktoken(ranks, GROUPED_DIGITS, ())))
    for text in ["abcd", "abcde", "abcd abcd", "xabcd"]:
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("IQ==\n", "line 1 is b'IQ=='"),
        ("!! 0\n", "line 1"),
        ("IQ== 1\n", "not 0 to 0"),
        ("IQ== 0\nIg== 0\n", "not 0 to 1"),
        ("IQ== 0\n", "lacks the byte 0x00"),
        ("", "lacks the byte"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "line 1"),
    ],
)
def test_damaged_tiktoken_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_tiktoken(path)


@pytest.mark.parametrize(
    ("name", "pattern"), [("Qwen2Tokenizer", SINGLE_DIGITS), ("GPT2Tokenizer", r"\s?\S+")]
)
def test_vocab_and_merges_as_transformers(tmp_path: Path, name: str, pattern: str) -> None:
    import transformers

    library = trained(pattern)
    write_slow_files(tmp_path, library, tokenizer_class=name, eos_token="<|endoftext|>")
    added = {"<|endoftext|>": library.get_vocab_size(), "<tool_call>": library.get_vocab_size() + 1}
    tmp_path.joinpath("added_tokens.json").write_text(json.dumps(added))
    model = json.loads(library.to_str())["model"]
    theirs = getattr(transformers, name)(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], eos_token="<|endoftext|>"
    )
    ours = Tokenizer.from_json(doc.to_text(build_vocab_and_merges(tmp_path)))
    for text in [t for t in [*MIXED_TEXTS, *random_texts(200)] if "<|endoftext|>" not in t]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert ours.special_ids == {added["<|endoftext|>"]}
    assert ours.encode("<tool_call>") == [added["<tool_call>"]]


def test_added_tokens_decoder_decides_what_is_special(tmp_path: Path) -> None:
    library = trained(SINGLE_DIGITS, 300)
    entries = {
        str(300): {"content": "<|im_end|>", "special": True},
        str(301): {"content": "<x>", "special": False},
    }
    write_slow_files(tmp_path, library, tokenizer_class="Qwen2TokenizerFast", added_tokens_decoder=entries)
    ours = Tokenizer.from_json(doc.to_text(build_vocab_and_merges(tmp_path)))
    assert ours.special_ids == {300}
    assert ours.encode("<|im_end|><x>", allow_special=True) == [300, 301]


def test_unknown_classes_are_refused(tmp_path: Path) -> None:
    write_slow_files(tmp_path, trained(SINGLE_DIGITS, 260), tokenizer_class="RobertaTokenizer")
    with pytest.raises(UnsupportedModelError, match="RobertaTokenizer"):
        build_vocab_and_merges(tmp_path)


def test_damaged_vocab_and_merges(tmp_path: Path) -> None:
    write_slow_files(tmp_path, trained(SINGLE_DIGITS, 260), tokenizer_class="GPT2Tokenizer")
    tmp_path.joinpath("merges.txt").write_text("a b c\n")
    with pytest.raises(CheckpointError, match="'a b c' is not two tokens"):
        read_merges(tmp_path / "merges.txt")
    tmp_path.joinpath("vocab.json").write_text('{"a": "b"}')
    with pytest.raises(CheckpointError, match="tokens and their ids"):
        build_vocab_and_merges(tmp_path)
    tmp_path.joinpath("vocab.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        build_vocab_and_merges(tmp_path)


def test_rules_cut_digits_as_they_should() -> None:
    vocab = {character: byte for byte, character in byte_characters().items()} | {"12": 256}
    merges = [["1", "2"]]

    def ids(rule: object) -> list[int]:
        return Tokenizer.from_json(doc.to_text(build_byte_level(vocab, merges, rule, []))).encode("12")  # type: ignore[arg-type]

    assert ids(DIGITS_RULE) == ids(QWEN2_RULE) == [ord("1"), ord("2")]
