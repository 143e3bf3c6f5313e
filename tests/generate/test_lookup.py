"""Prompt lookup: what it drafts, and that no token of any answer depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generate.tiny_models import BEGIN, CAUSAL, GMASK, PREFIXED, SOP, write_tiny
from pocketglm.errors import InputError
from pocketglm.generate.lookup import FIRST_DRAFT, LONGEST_PAUSE, DraftLength, LookupDecoder, NgramIndex
from pocketglm.generate.model import Model, load
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.stream import Generation
from pocketglm.quantize.formats import WeightFormat

PROMPT = [BEGIN, *range(40, 60), 40, 41, 42]
PREFIXED_PROMPT = [*range(40, 60), 40, 41, GMASK, SOP]


@pytest.fixture(scope="module", params=["causal", "prefixed"])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """An int4 model on the native engine, with a long context's attention in reach."""
    spec = CAUSAL if request.param == "causal" else PREFIXED
    path = write_tiny(
        tmp_path_factory.mktemp("native") / "p",
        spec,
        generation={"do_sample": False},
        weight_format=WeightFormat(4, 32),
    )
    with load(path, "native", threads=2) as model:
        yield model


def prompt_of(model: Model) -> list[int]:
    return PROMPT if model.spec.prefix_tokens is None else PREFIXED_PROMPT


def answer(model: Model, lookup: int, prompt: list[int] | None = None, **settings: Any) -> Generation:
    settings.setdefault("max_new_tokens", 60)
    with model.session() as session:
        return model.answer(
            prompt or prompt_of(model), SamplingSettings(**settings), session, lookup=lookup
        ).finish()


class TestIndex:
    def test_continues_at_the_latest_earlier_place(self) -> None:
        index = NgramIndex([1, 2, 3, 7, 1, 2, 3, 8, 5, 1, 2, 3])
        assert index.continuation(4) == [8, 5, 1, 2]

    def test_longer_runs_come_first(self) -> None:
        index = NgramIndex([9, 1, 2, 30, 4, 1, 2, 40, 9, 1, 2])
        assert index.continuation(1) == [30]

    def test_a_repeating_text_is_read_on_into_the_draft(self) -> None:
        assert NgramIndex([5, 6, 7, 5, 6, 7, 5, 6]).continuation(7) == [7, 5, 6, 7, 5, 6, 7]

    @pytest.mark.parametrize("tokens", [[], [1], [1, 1], [1, 2, 3, 4], [1, 2, 9, 2]])
    def test_nothing_to_go_by(self, tokens: list[int]) -> None:
        assert NgramIndex(tokens).continuation(5) == []


class TestLength:
    def test_grows_with_drafts_that_come_true(self) -> None:
        length = DraftLength(15)
        seen = []
        for _ in range(4):
            seen.append(length.next())
            length.judge(seen[-1], seen[-1])
        assert seen == [3, 7, 15, 15]
        length.judge(15, 5)
        assert length.next() == 5
        length.judge(5, 1)
        assert length.next() == FIRST_DRAFT

    def test_pauses_longer_the_more_drafts_fail(self) -> None:
        length, pauses = DraftLength(3), []
        for _ in range(8):
            length.judge(3, 0)
            pause = 0
            while length.next() == 0:
                pause += 1
            pauses.append(pause)
        assert pauses == [1, 3, 7, 15, 31, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
        length.judge(3, 1)
        assert length.next() == 3

    def test_never_beyond_the_most(self) -> None:
        length = DraftLength(2)
        assert length.next() == 2
        length.judge(2, 2)
        assert length.next() == 2


class TestExactness:
    """The whole point: whatever is drafted, the tokens are those of one row at a time."""

    @pytest.mark.parametrize("threads", [1, 2])
    def test_few_rows_have_the_bits_of_one_row(self, native: Model, threads: int) -> None:
        """Passes of 2 to 4 rows against passes of one, across pages of the cache and where attention is
        divided among threads."""
        prompt = prompt_of(native)
        filler = np.random.default_rng(0).integers(0, 250, 700).tolist()
        tokens = np.random.default_rng(1).integers(0, 250, 132).tolist()
        with load(native.package.path, "native", threads=threads) as model, model.session() as session:
            session.forward(prompt)
            for length in (len(prompt), len(prompt) + 700):
                session.forward(filler[: length - session.length]) if length > session.length else None
                expected = np.concatenate([session.forward([token]) for token in tokens])
                for rows in (2, 3, 4):
                    session.truncate(length)
                    found = [session.forward(tokens[i : i + rows]) for i in range(0, len(tokens), rows)]
                    assert np.array_equal(np.concatenate(found), expected)
                session.truncate(length)

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
            {"temperature": 0.2, "seed": 3},
            {"temperature": 1.0, "seed": 4, "top_k": 3, "repetition_penalty": 1.1},
        ],
        ids=["greedy", "penalties", "cool", "warm"],
    )
    @pytest.mark.parametrize("lookup", [1, 3])
    def test_same_tokens(self, native: Model, settings: dict[str, Any], lookup: int) -> None:
        plain, guessed = answer(native, 0, **settings), answer(native, lookup, **settings)
        assert guessed.tokens == plain.tokens
        assert guessed.text == plain.text
        assert plain.statistics.drafted_tokens == 0

    def test_long_drafts_on_float32(self, causal: Model, prefixed: Model) -> None:
        for model in (causal, prefixed):
            plain, guessed = answer(model, 0), answer(model, 15)
            assert guessed.tokens == plain.tokens

    def test_drafts_are_made_and_refused_here(self, native: Model) -> None:
        """Without this the tests above might compare nothing."""
        figures = answer(native, 3, temperature=0.7, seed=1, max_new_tokens=200).statistics
        assert 0 <= figures.accepted_tokens < figures.drafted_tokens
        repeating = answer(native, 3, temperature=1e-3, seed=1, max_new_tokens=200).statistics
        assert 0 < repeating.accepted_tokens <= repeating.drafted_tokens


class TestSession:
    @pytest.mark.parametrize("limit", [1, 2, 7, 40])
    def test_holds_what_was_given_out_at_the_end(self, native: Model, limit: int) -> None:
        prompt = prompt_of(native)
        with native.session() as session:
            settings = SamplingSettings(max_new_tokens=limit)
            made = native.answer(prompt, settings, session, lookup=3).finish()
            assert len(made.tokens) == limit
            assert session.token_ids == (*prompt, *made.tokens[:-1])
            assert native.stages[0].length(session._sequence) == session.length

    def test_stopping_cuts_what_was_guessed(self, native: Model) -> None:
        prompt = prompt_of(native)
        with native.session() as session:
            made = native.answer(prompt, SamplingSettings(max_new_tokens=300), session, lookup=3)
            for _ in range(100):
                next(made)
            made.close()
            assert session.token_ids == (*prompt, *made.tokens)[: session.length]
            assert session.length <= len(prompt) + 100

    def test_closing_the_session_first_is_harmless(self, native: Model) -> None:
        with native.session() as session:
            made = native.answer(prompt_of(native), SamplingSettings(max_new_tokens=300), session, lookup=3)
            for _ in range(50):
                next(made)
        made.close()
        assert made.finish_reason == "interrupted"

    def test_the_context_is_never_exceeded(self, native: Model) -> None:
        prompt = [*([1, 2, 3] * 397), *prompt_of(native)[-2:]]
        made = answer(native, 3, prompt, max_new_tokens=None)
        assert len(prompt) + len(made.tokens) == native.context

    def test_a_refused_draft_leaves_no_trace(self, causal: Model) -> None:
        with causal.session() as session:
            session.forward([1, 2, 3, 4, 1])
            decoder = LookupDecoder(session, [1, 2, 3, 4, 1], 3)
            decoder.logits(2, room=10)
            assert session.token_ids == (1, 2, 3, 4, 1, 2, 3, 4, 1)
            row = decoder.logits(9, room=10)
            assert session.token_ids == (1, 2, 3, 4, 1, 2, 9)
            assert (decoder.drafted, decoder.accepted) == (3, 0)
        with causal.session() as other:
            expected = other.forward([1, 2, 3, 4, 1, 2, 9])[-1]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_default_of_an_engine(native: Model, causal: Model) -> None:
    assert native.lookup == 3
    assert causal.lookup == 0


@pytest.mark.parametrize("wrong", [-1, 65, 1.5, True])
def test_wrong_numbers_are_refused(causal: Model, causal_path: Path, wrong: Any) -> None:
    with pytest.raises(InputError, match="lookup is"):
        load(causal_path, "reference", lookup=wrong)
    with pytest.raises(InputError, match="lookup is"):
        list(causal.generate([1], lookup=wrong))
