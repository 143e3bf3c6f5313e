"""Kept sessions: what is taken over, copied and dropped."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from generate.tiny_models import GMASK, SOP
from pocketglm.errors import InputError
from pocketglm.generate.model import Model
from pocketglm.generate.prefix_cache import PrefixCache
from pocketglm.generate.session import Session
from pocketglm.plan.kv_cache import kv_bytes_per_token


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 250, length).tolist()


def kept(cache: PrefixCache, ids: list[int]) -> Session:
    """A session that has run `ids` and was given back."""
    session = cache.take(ids)
    session.forward(ids[session.length :])
    cache.give_back(session)
    return session


def open_sequences(model: Model) -> int:
    return len(model.stages[0]._caches)  # type: ignore[attr-defined]


def check_goes_on(model: Model, session: Session, ids: list[int]) -> None:
    """What the session holds is worth as much as a run from scratch."""
    start = session.length
    assert list(session.token_ids) == ids[:start]
    rows = session.forward(ids[start:])
    with model.session() as fresh:
        np.testing.assert_allclose(rows, fresh.forward(ids)[start:], atol=1e-4)


def test_a_next_turn_takes_the_session_over(causal: Model) -> None:
    cache, first = PrefixCache(causal), text(40)
    one = kept(cache, first)
    longer = [*first, *text(10, 1)]
    again = cache.take(longer)
    assert again is one
    assert again.length == 40
    check_goes_on(causal, again, longer)
    cache.give_back(again)
    cache.close()


def test_a_shared_beginning_is_copied_and_the_other_stays(causal: Model) -> None:
    cache = PrefixCache(causal)
    system = text(30)
    one = kept(cache, [*system, *text(50, 1)])
    ids = [*system, *text(20, 2)]
    two = cache.take(ids)
    assert two is not one
    assert two.length == 30
    assert one.length == 80
    check_goes_on(causal, two, ids)
    cache.give_back(two)
    assert cache.kept == (one, two)
    cache.close()


def test_a_session_in_use_is_copied_from(causal: Model) -> None:
    cache, ids = PrefixCache(causal), text(40)
    one = cache.take(ids)
    one.forward(ids)
    two = cache.take([*ids, 1, 2])
    assert two is not one
    assert two.length == 40
    check_goes_on(causal, two, [*ids, 1, 2])
    one.close()
    cache.give_back(one)
    cache.give_back(two)
    assert cache.kept == (two,)
    cache.close()


def test_another_text_gets_an_empty_session(causal: Model) -> None:
    cache = PrefixCache(causal)
    one = kept(cache, text(40))
    other = cache.take(text(40, 9))
    assert other.length == 0
    assert cache.kept == (one,)
    other.close()
    cache.close()


def test_a_bidirectional_context_is_shared_as_a_whole(prefixed: Model) -> None:
    cache, prompt = PrefixCache(prefixed), [*text(30), GMASK, SOP]
    one = kept(cache, [*prompt, 1, 2, 3])
    copied = cache.take([*text(30), 7, GMASK, SOP])  # another context, however alike it begins
    assert copied.length == 0
    copied.close()
    again = cache.take([*prompt, 1, 2, 9])
    assert again is one
    assert again.length == 34
    busy = cache.take([*prompt, 1, 2, 9])
    assert busy.length == 34
    check_goes_on(prefixed, busy, [*prompt, 1, 2, 9])
    for session in (again, busy):
        session.close()
    cache.close()


def test_only_the_latest_are_kept(causal: Model) -> None:
    before = open_sequences(causal)
    cache = PrefixCache(causal, sessions=2)
    sessions = [kept(cache, text(20, seed)) for seed in range(4)]
    assert cache.kept == tuple(sessions[2:])
    assert open_sequences(causal) == before + 2
    kept(cache, [*text(20, 2), 1])  # used again: now the other one is the oldest
    kept(cache, text(20, 7))
    assert [session.token_ids[:20] for session in cache.kept] == [tuple(text(20, 2)), tuple(text(20, 7))]
    cache.close()
    assert open_sequences(causal) == before


def test_only_what_fits_is_kept_beside_the_latest(causal: Model) -> None:
    room = 50 * kv_bytes_per_token(causal.spec, "float32")
    cache = PrefixCache(causal, kept_bytes=room)
    sessions = [kept(cache, text(length, length)) for length in (20, 30, 40)]
    assert cache.kept == tuple(sessions)
    large = kept(cache, text(200, 5))
    assert cache.kept == (sessions[2], large)
    cache.close()


def test_without_room_one_session_serves_all(causal: Model) -> None:
    before = open_sequences(causal)
    cache = PrefixCache(causal, kept_bytes=0)
    one = kept(cache, text(40))
    two = cache.take(text(30, 4))
    assert two is one
    assert two.length == 0
    assert open_sequences(causal) == before + 1
    cache.give_back(two)  # empty: nothing to keep
    assert cache.kept == ()
    assert open_sequences(causal) == before


def test_copying_needs_an_empty_session_of_the_same_model(causal: Model, prefixed: Model) -> None:
    with causal.session() as one, causal.session() as two, prefixed.session() as other:
        one.forward(text(5))
        two.forward(text(5))
        for source, target in ((one, two), (one, other)):
            with pytest.raises(InputError, match="only an empty session"):
                target.copy_prefix(source, 3)


def test_threads_that_share_a_beginning(causal: Model) -> None:
    """Sessions are copied while others compute; every answer is the one that a lone thread gets."""
    prompts = [[*text(30), *text(10, seed)] for seed in range(6)]
    expected = [list(causal.generate(prompt, 6)) for prompt in prompts]
    cache, found = PrefixCache(causal), [[] for _ in prompts]

    def run(index: int) -> None:
        for _ in range(3):
            session = cache.take(prompts[index])
            made = causal.answer(prompts[index], causal.settings(max_new_tokens=6), session).finish()
            found[index].append(made.tokens)
            cache.give_back(session)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[tokens] * 3 for tokens in expected]
    cache.close()
