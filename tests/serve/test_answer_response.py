"""Pieces of an answer on their way to events."""

from __future__ import annotations

from pocketglm.serve.answer_request import AnswerPiece, TokenLogprobs
from pocketglm.serve.answer_response import joined


def test_neighbouring_texts_become_one_piece() -> None:
    end = AnswerPiece(None, "d", None, "stop")
    pieces = [AnswerPiece(1, "a"), AnswerPiece(2, ""), AnswerPiece(3, "b"), end]
    assert joined(pieces) == [AnswerPiece(None, "ab"), end]
    assert joined(pieces[:1]) == pieces[:1]
    assert joined([]) == []


def test_what_says_more_than_text_stays_alone() -> None:
    probable = AnswerPiece(2, "b", TokenLogprobs(2, -0.5))
    first, last = AnswerPiece(1, "a"), AnswerPiece(3, "c")
    assert joined([first, probable, probable, last]) == [first, probable, probable, last]
