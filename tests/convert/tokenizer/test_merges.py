"""Recovered merges give the same segmentation as merging any pair whose joined text is a piece."""

from __future__ import annotations

import json
import string
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.merges import last_pair, merge_steps, recover_merges


def merge_by_rank(text: str, ranks: dict[str, int]) -> list[str]:
    """SentencePiece's and tiktoken's rule: the best adjacent pair first, the leftmost of equals."""
    parts = list(text)
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not found:
            return parts
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


PIECES = st.lists(st.text("ab", min_size=2, max_size=6), unique=True, max_size=20)


@given(pieces=PIECES, texts=st.lists(st.text("abc", max_size=24), max_size=5))
def test_one_pair_a_piece_is_enough(pieces: list[str], texts: list[str]) -> None:
    ranks = {piece: rank for rank, piece in enumerate([*"abc", *pieces])}
    model = doc.bpe_model(ranks, recover_merges(ranks))
    library = Tokenizer.from_str(json.dumps(doc.document(model, [])))
    for text in texts:
        assert library.encode(text).tokens == merge_by_rank(text, ranks)


def test_equal_ranks_inside_a_piece_merge_from_the_left() -> None:
    ranks = {"a": 9.0, "aa": 1.0, "aaa": 1.0}
    assert last_pair("aaa", ranks) == ("aa", "a")
    assert recover_merges(ranks) == [("a", "a"), ("aa", "a")]


def test_pieces_that_no_merging_reaches_get_no_pair() -> None:
    assert recover_merges({"a": 0, "b": 1, "c": 2, "abc": 3}) == []
    assert recover_merges({"a": 0, "ab": 1}) == []  # "b" is no token


def test_bytes_merge_as_text_does() -> None:
    assert recover_merges({b"a": 0, b"\xff": 1, b"a\xff": 2}) == [(b"a", b"\xff")]


def test_merge_steps_lists_what_forms_on_the_way() -> None:
    ranks = {("a", "b"): 0, ("c", "d"): 1, ("ab", "cd"): 2}
    assert list(merge_steps("abcd", ranks)) == ["ab", "cd", "abcd"]
    assert list(merge_steps(string.digits, ranks)) == []
