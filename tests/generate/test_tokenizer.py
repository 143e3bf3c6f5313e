"""The run-time tokenizer: plain and special text, and streams that equal the whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketglm.errors import InputError, PackageError
from pocketglm.generate.detokenizer import byte_characters
from pocketglm.generate.tokenizer import Tokenizer

SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def byte_level_json() -> str:
    """256 byte tokens, a few merges, one special and one ordinary added token."""
    letters = byte_characters()
    vocab = {letters[byte]: byte for byte in range(256)}
    merges = []
    for left, right in [("h", "e"), ("l", "l"), ("he", "ll"), ("ä", "½"), ("ä½", "ł")]:
        vocab[left + right] = len(vocab)
        merges.append([left, right])
    added = [
        {"id": len(vocab), "content": "<|user|>", **SPECIAL},
        {"id": len(vocab) + 1, "content": "<think>", **SPECIAL, "special": False},
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "added_tokens": added,
            "pre_tokenizer": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": True,
            },
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
            "model": {"type": "BPE", "vocab": vocab, "merges": merges},
        }
    )


def byte_fallback_json() -> str:
    """A Llama-like vocabulary: a blank as a lower one eighth block, bytes, a dummy prefix."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcä你"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": 1, "content": "<s>", **SPECIAL}],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            },
            "model": {
                "type": "BPE",
                "vocab": vocab,
                "merges": [],
                "unk_token": "<unk>",
                "byte_fallback": True,
            },
        }
    )


BYTE_LEVEL = Tokenizer.from_json(byte_level_json())
BYTE_FALLBACK = Tokenizer.from_json(byte_fallback_json())


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"])
@given(text=st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"])
@settings(deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_stream_gives_the_text_of_the_whole(tokenizer: Tokenizer, data: st.DataObject, skip: bool) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    stream = tokenizer.stream(skip_special=skip)
    pieces = [stream.push(token_id) for token_id in ids] + [stream.finish()]
    raw = b"".join(tokenizer.token_bytes(i) for i in ids if not (skip and i in tokenizer.special_ids))
    expected = raw.decode("utf-8", "replace")
    if tokenizer is BYTE_FALLBACK and expected.startswith(" "):
        expected = expected[1:]
    assert "".join(pieces) == expected == tokenizer.decode(ids, skip_special=skip)


def test_stream_waits_for_the_whole_character() -> None:
    stream = BYTE_FALLBACK.stream()
    pieces = [stream.push(byte + 2) for byte in "é🎉".encode()]
    assert pieces == ["", "é", "", "", "", "🎉"]
    assert stream.finish() == ""


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    stream = BYTE_LEVEL.stream()
    assert [stream.push(0xE4), stream.push(0xBD), stream.finish()] == ["", "", "\ufffd"]


def test_special_tokens_in_plain_text_are_text() -> None:
    user = BYTE_LEVEL.token_id("<|user|>")
    assert BYTE_LEVEL.encode("<|user|>", allow_special=True) == [user]
    plain = BYTE_LEVEL.encode("<|user|>")
    assert user not in plain
    assert BYTE_LEVEL.decode(plain) == "<|user|>"
    assert BYTE_LEVEL.decode([user]) == ""
    assert BYTE_LEVEL.decode([user], skip_special=False) == "<|user|>"
    assert BYTE_LEVEL.encode("<think>") == [BYTE_LEVEL.token_id("<think>")]


def test_truncation_in_the_file_is_not_followed() -> None:
    assert len(BYTE_LEVEL.encode("wxyz" * 10)) == 40


def test_ids_without_a_token_decode_to_nothing() -> None:
    assert BYTE_LEVEL.decode([BYTE_LEVEL.vocab_size + 5]) == ""
    with pytest.raises(InputError, match="token id -1"):
        BYTE_LEVEL.decode([-1])


def test_lone_surrogates_are_replaced() -> None:
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode("a\ud800b\ud83c\udf89")) == "a\ufffdb🎉"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[1]", "expected an object"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "step None is not supported"),
        ('{"decoder": {"type": "WordPiece"}}', "WordPiece is unknown"),
        ('{"decoder": {"type": "Sequence", "decoders": [3]}}', "not supported"),
        ('{"decoder": {"type": "ByteLevel"}}', "cannot read it"),
        (byte_level_json().replace('["h", "e"]', '["h", "nowhere"]'), "cannot read it"),
    ],
)
def test_damaged_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        Tokenizer.from_json(text)
