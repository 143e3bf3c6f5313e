"""The generation loop: pieces, ends, limits, interruption."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from generate.tiny_models import BEGIN, GMASK, SOP
from pocketglm.errors import InputError
from pocketglm.generate import session as session_module
from pocketglm.generate.model import Model
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.generate.stream import Generation, Piece, Statistics, log_probability

PROMPT = [BEGIN, 40, 41, 42]


def greedy_ids(model: Model, prompt: list[int], count: int) -> list[int]:
    """The oracle: one pass from scratch for each token."""
    ids = list(prompt)
    for _ in range(count):
        with model.session() as session:
            ids.append(int(session.forward(ids)[-1].argmax()))
    return ids[len(prompt) :]


def generation(
    model: Model, session: Session, prompt: list[int] = PROMPT, ends: tuple[int, ...] = (), **settings: Any
) -> Generation:
    settings.setdefault("max_new_tokens", 12)
    stream = model.tokenizer.stream(skip_special=False)
    return Generation(session, prompt, SamplingSettings(**settings), ends, stream)


def test_greedy_tokens_equal_repeated_full_passes(causal: Model) -> None:
    with causal.session() as session:
        made = generation(causal, session).finish()
    assert made.tokens == greedy_ids(causal, PROMPT, 12)
    assert made.finish_reason == "length"


def test_a_bidirectional_model_too(prefixed: Model) -> None:
    prompt = [40, 41, 42, GMASK, SOP]
    with prefixed.session() as session:
        made = generation(prefixed, session, prompt).finish()
    assert made.tokens == greedy_ids(prefixed, prompt, 12)


def test_pieces_joined_are_the_text(causal: Model) -> None:
    with causal.session() as session:
        made = generation(causal, session)
        pieces = list(made)
    assert [piece.token for piece in pieces if piece.token is not None] == made.tokens
    assert "".join(piece.text for piece in pieces) == made.text
    assert made.text == causal.tokenizer.decode(made.tokens, skip_special=False)


def test_ends_before_an_end_token(causal: Model) -> None:
    ids = greedy_ids(causal, PROMPT, 12)
    end = ids[5]
    with causal.session() as session:
        made = generation(causal, session, ends=(end, 999)).finish()
    assert made.tokens == ids[: ids.index(end)]
    assert made.finish_reason == "stop"


def test_ignore_eos_never_gives_an_end_token(causal: Model) -> None:
    end = greedy_ids(causal, PROMPT, 1)[0]
    with causal.session() as session:
        made = generation(causal, session, ends=(end,), ignore_eos=True).finish()
    assert len(made.tokens) == 12
    assert end not in made.tokens


def test_a_stop_string_ends_the_text_before_it(causal: Model) -> None:
    with causal.session() as session:
        whole = generation(causal, session).finish().text
    stop = whole[4:6]
    with causal.session() as session:
        made = generation(causal, session, stop=(stop,))
        shown = "".join(piece.text for piece in made)
    assert shown == made.text == whole[: whole.index(stop)]
    assert made.finish_reason == "stop"


def test_text_held_back_for_a_stop_string_comes_at_the_end(causal: Model) -> None:
    with causal.session() as session:
        whole = generation(causal, session).finish().text
    with causal.session() as session:
        made = generation(causal, session, stop=(whole[-1] + "never",))
        pieces = list(made)
    assert pieces[-1] == Piece(None, whole[-1])
    assert made.text == whole


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_the_limit_is_exact(causal: Model, limit: int) -> None:
    with causal.session() as session:
        made = generation(causal, session, max_new_tokens=limit).finish()
        assert len(made.tokens) == limit
        assert session.token_ids == tuple(PROMPT + made.tokens)[: session.length]
    assert made.finish_reason == "length"


def test_stops_where_the_context_is_full(causal: Model) -> None:
    prompt = [1] * (causal.spec.max_context - 3)
    with causal.session() as session:
        made = generation(causal, session, prompt, max_new_tokens=None).finish()
    assert len(made.tokens) == 3
    assert made.finish_reason == "length"


def test_max_length_counts_prompt_and_answer(causal: Model) -> None:
    with causal.session() as session:
        made = generation(causal, session, max_new_tokens=None, max_length=len(PROMPT) + 2).finish()
        assert len(made.tokens) == 2
        with pytest.raises(InputError, match="prompt and answer may have 4"):
            generation(causal, session, max_new_tokens=None, max_length=4)


def test_prompts_that_cannot_be_run_are_refused_at_once(causal: Model) -> None:
    with causal.session() as session:
        with pytest.raises(InputError, match="no tokens"):
            generation(causal, session, [])
        with pytest.raises(InputError, match="context holds 1200"):
            generation(causal, session, [1] * 1200)


def test_stop_from_the_consumer_keeps_what_was_given_out(causal: Model) -> None:
    with causal.session() as session:
        made = generation(causal, session, max_new_tokens=100)
        seen = []
        for piece in made:
            seen.append(piece.token)
            if len(seen) == 5:
                made.stop()
        assert made.finish_reason == "interrupted"
        assert made.tokens == seen
        assert session.token_ids == tuple(PROMPT + seen[:-1])  # the last was given out, not yet computed


def test_stop_from_another_thread(causal: Model) -> None:
    with causal.session() as session:
        made = generation(causal, session, max_new_tokens=None)
        next(made)
        timer = threading.Timer(0.05, made.stop)
        timer.start()
        made.finish()
        timer.join()
        assert made.finish_reason == "interrupted"
        assert session.token_ids == tuple(PROMPT + made.tokens)[: session.length]
        assert session.length >= len(PROMPT) + len(made.tokens) - 1


def test_stop_during_a_long_prompt(causal: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "CHUNK_ROWS", 8)
    prompt = [1] * 40
    with causal.session() as session:
        made = generation(causal, session, prompt)
        real = session.forward

        def stop_after_two(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            if session.length == 16:
                made.stop()
            return result

        monkeypatch.setattr(session, "forward", stop_after_two)
        assert list(made) == []
        assert made.finish_reason == "interrupted"
        assert session.length == 16  # whole chunks stay, for the next try to reuse


def test_ctrl_c_goes_through_and_leaves_the_session_whole(
    causal: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with causal.session() as session:
        made = generation(causal, session)
        first = [next(made).token, next(made).token]

        def interrupted(*arguments: Any) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(causal.stages[0], "forward", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(made)
        assert made.finish_reason == "interrupted"
        assert session.token_ids == (*PROMPT, first[0])
        again = generation(causal, session, PROMPT + first, max_new_tokens=3).finish()
        assert again.statistics.reused_tokens == 5
    assert again.tokens == greedy_ids(causal, PROMPT + first, 3)


def test_giving_up_half_way(causal: Model) -> None:
    with causal.session() as session:
        made = generation(causal, session)
        next(made)
        made.close()
        assert made.finish_reason == "interrupted"


def test_statistics(causal: Model) -> None:
    with causal.session() as session:
        generation(causal, session).finish()
        made = generation(causal, session, [*PROMPT, 7, 8], max_new_tokens=3).finish()
    figures = made.statistics
    assert (figures.prompt_tokens, figures.generated_tokens) == (6, 3)
    assert figures.reused_tokens == 4
    assert figures.prefill_tps > 0
    assert figures.decode_tps > 0
    assert set(figures.to_dict()) == {
        "prompt_tokens",
        "reused_tokens",
        "generated_tokens",
        "time_to_first_token_s",
        "prefill_tps",
        "decode_tps",
        "drafted_tokens",
        "accepted_tokens",
    }
    assert Statistics().to_dict()["decode_tps"] == 0


def test_log_probabilities_are_the_models_own(causal: Model) -> None:
    with causal.session() as session:
        logits = session.forward(PROMPT)[-1]
    expected = np.log(np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum())
    with causal.session() as session:
        settings = SamplingSettings(max_new_tokens=1, temperature=2.0, top_k=5, seed=0)
        (piece,) = Generation(session, PROMPT, settings, logprobs=True)
    assert piece.logprob == pytest.approx(expected[piece.token])
    assert log_probability(np.array([0, 0], np.float32), 1) == pytest.approx(np.log(0.5))


def test_a_character_of_several_tokens_is_never_split(causal: Model) -> None:
    """Force the bytes of a Chinese text through the loop, one token a byte."""
    wanted = causal.tokenizer.encode("你好，世界")
    forced = iter(wanted)
    with causal.session() as session:
        made = generation(causal, session, max_new_tokens=len(wanted))
        made._sampler.next = lambda logits: next(forced)  # type: ignore[method-assign]
        pieces = [piece.text for piece in made]
    assert "".join(pieces) == "你好，世界"
    assert [piece for piece in pieces if piece] == list("你好，世界")
