"""Slim tokenizers: kept tokens keep their places, and every text still comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.tokenizer.samples import MIXED_TEXTS, TEXTS, random_texts, train_sentencepiece
from convert.tokenizer.vocabularies import trained_ranks
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import GROUPED_DIGITS, build_tiktoken
from pocketglm.convert.tokenizer.sentencepiece_model import (
    Surroundings,
    build_sentencepiece,
    read_sentencepiece,
)
from pocketglm.convert.tokenizer.slim import close_kept_tokens, read_kept_tokens, slim_tokenizer
from pocketglm.errors import InputError
from pocketglm.generate.tokenizer import Tokenizer


class Whole(str):
    """A `tokenizer.json` that does not fill the screen when a test fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<tokenizer.json of {len(self)} characters>"


def sentencepiece_json(directory: Path, kind: str) -> str:
    path = train_sentencepiece(
        directory / "m.model",
        kind,
        900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<n>"],
    )
    around = Surroundings(appended=("[gMASK]", "<sop>"), prefix=("[gMASK]", "<sop>"))
    return doc.to_text(build_sentencepiece(read_sentencepiece(path), around, path))


@pytest.fixture(scope="module", params=["bpe", "unigram", "tiktoken"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "tiktoken":
        ranks = trained_ranks(GROUPED_DIGITS)
        return Whole(
            doc.to_text(
                build_tiktoken(ranks, GROUPED_DIGITS, ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>"))
            )
        )
    return Whole(sentencepiece_json(tmp_path_factory.mktemp("model"), request.param))


def slim(whole: str, kept: list[int]) -> tuple[Tokenizer, Tokenizer, list[int]]:
    rows = close_kept_tokens(whole, kept)
    text = doc.to_text(slim_tokenizer(json.loads(whole), rows))
    return Tokenizer.from_json(whole), Tokenizer.from_json(text), rows


@settings(deadline=None, max_examples=25)
@given(texts=st.lists(TEXTS | st.sampled_from(MIXED_TEXTS[:20]), min_size=1, max_size=4))
def test_texts_of_kept_tokens_get_the_mapped_ids(whole: str, texts: list[str]) -> None:
    """Keep what some texts use: those texts are encoded as before, in the new numbering."""
    original = Tokenizer.from_json(whole)
    used = {i for text in texts for i in original.encode(text)}
    original, small, rows = slim(whole, sorted(used))
    for text in texts:
        assert [rows[i] for i in small.encode(text)] == original.encode(text)
        assert small.decode(small.encode(text)) == original.decode(original.encode(text))


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_every_text_comes_back_from_any_choice(whole: str, data: st.DataObject) -> None:
    """Texts outside the choice fall back to bytes; texts inside it keep their tokens."""
    original = Tokenizer.from_json(whole)
    chosen = data.draw(st.lists(st.integers(0, original.vocab_size - 1), max_size=300))
    original, small, rows = slim(whole, chosen)
    kept = set(rows)
    for text in [*MIXED_TEXTS[:30], *random_texts(10)]:
        ids = original.encode(text)
        assert small.decode(small.encode(text)) == original.decode(ids)
        if kept.issuperset(ids):
            assert [rows[i] for i in small.encode(text)] == ids
    assert small.vocab_size == len(rows)


def test_keeping_everything_changes_nothing(whole: str) -> None:
    count = Tokenizer.from_json(whole).vocab_size
    rows = close_kept_tokens(whole, range(count))
    assert rows == list(range(count))
    assert slim_tokenizer(json.loads(whole), rows) == json.loads(whole)


def test_special_tokens_follow(whole: str) -> None:
    original, small, rows = slim(whole, [])
    assert {rows[i] for i in small.special_ids} == original.special_ids
    assert [rows[i] for i in small.encode("", prompt=True)] == original.encode("", prompt=True)
    texts = list(original.special_tokens)
    assert [rows[i] for i in small.encode("".join(texts), allow_special=True)] == [
        original.special_tokens[text].id for text in texts
    ]


def test_padding_rows_keep_their_number(tmp_path: Path) -> None:
    """A model may have more rows than its tokenizer has tokens; they are numbered all the same."""
    whole = sentencepiece_json(tmp_path, "bpe")
    count = Tokenizer.from_json(whole).vocab_size
    rows = [*close_kept_tokens(whole, []), count + 3]
    small = Tokenizer.from_json(doc.to_text(slim_tokenizer(json.loads(whole), rows)))
    assert small.vocab_size == len(rows) - 1


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str) -> Path:
        path = tmp_path / "keep.txt"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_reading_kept_tokens(whole: str, write: Write) -> None:
    user = json.loads(whole)["added_tokens"][-1]
    assert read_kept_tokens(write("# chosen\n7\n\n 3 \n7\n"), whole) == [3, 7]
    content = json.dumps([9, user["content"]])
    assert read_kept_tokens(write(content), whole) == sorted([9, user["id"]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no token"),
        ("[]", "names no token"),
        ("hello", "line 1 is 'hello'"),
        ("1\n-2\n", "line 2 is '-2'"),
        ("99999999", "no token with the id 99999999"),
        ("9" * 5000, "line 1"),
        ('["no such token"]', "no token with the text 'no such token'"),
        ("[1.5]", "neither an id nor a token text"),
        ("[true]", "neither an id nor a token text"),
        ("[1, [2]]", "neither an id nor a token text"),
        ("[1,", "is not a JSON list"),
    ],
)
def test_wrong_lists_of_kept_tokens(whole: str, write: Write, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_kept_tokens(write(content), whole)


def test_unreadable_lists(whole: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_kept_tokens(tmp_path / "absent", whole)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_kept_tokens(tmp_path / "binary", whole)


def test_ids_outside_the_vocabulary(whole: str) -> None:
    with pytest.raises(InputError, match="no token with the id -5"):
        close_kept_tokens(whole, [-5])
