"""Many answers from one batch: the same tokens as alone, whoever comes, goes or fails beside them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generate.tiny_models import BEGIN, GMASK, SOP, VOCAB
from pocketglm.engine.contract import Batch, Float32, Stage
from pocketglm.errors import BusyError, EngineError, InputError
from pocketglm.generate.model import Model, load
from pocketglm.generate.sampler import Sampler, SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.serve.answer_request import AnswerRequest
from pocketglm.serve.async_model import Answer, AsyncModel
from pocketglm.serve.jobs import AnswerJob, Job
from pocketglm.serve.scheduler import Scheduler
from pocketglm.serve.settings import BatchSettings
from serve.event_loops import run


def prompt(seed: int, length: int, model: Model) -> tuple[int, ...]:
    ids = np.random.default_rng(seed).integers(0, 250, length)
    if model.spec.prefix_tokens is not None:
        return (*(int(i) for i in ids), GMASK, SOP)
    return (BEGIN, *(int(i) for i in ids))


def greedy(tokens: tuple[int, ...], most: int | None, **more: Any) -> AnswerRequest:
    return AnswerRequest(tokens, SamplingSettings(max_new_tokens=most, ignore_eos=True), **more)


def alone(model: Model, request: AnswerRequest) -> tuple[int, ...]:
    settings = request.settings
    return tuple(
        model.generate(
            request.prompt, settings.max_new_tokens, ignore_eos=True, logit_bias=settings.logit_bias
        )
    )


async def tokens_of(answer: Answer) -> tuple[int, ...]:
    return tuple([piece.token async for piece in answer if piece.token is not None])


@pytest.mark.parametrize("path", ["causal_path", "prefixed_path"])
@pytest.mark.parametrize("lookup", [0, 3])
def test_answers_together_have_the_tokens_of_answers_alone(
    path: str, lookup: int, request: pytest.FixtureRequest
) -> None:
    with load(request.getfixturevalue(path), "reference", lookup=lookup) as model:
        requests = [greedy(prompt(i, 3 + 37 * i, model), 12 + i) for i in range(6)]
        expected = [alone(model, each) for each in requests]

        async def together() -> list[tuple[int, ...]]:
            async with AsyncModel(model) as engine:
                first = [engine.submit(each) for each in requests[:3]]
                await anext(first[0])
                later = [engine.submit(each) for each in requests[3:]]
                rest = await asyncio.gather(*map(tokens_of, [*first, *later]))
                return [(first[0].token_ids[0], *rest[0]), *rest[1:]]

        assert run(together()) == expected


def test_tokens_chosen_together_are_those_chosen_alone(causal_path: Path) -> None:
    """By the native head, with settings of each answer's own; passes of few rows have the bits of one row."""
    drawn = [{"temperature": 0.9, "seed": 5}, {}, {"temperature": 0.7, "top_p": 0.8, "seed": 6}]
    settings = [SamplingSettings(max_new_tokens=40, ignore_eos=True, **each) for each in drawn]

    async def together(model: Model, requests: list[AnswerRequest]) -> list[tuple[int, ...]]:
        async with AsyncModel(model) as engine:
            return list(await asyncio.gather(*map(tokens_of, engine.submit_all(requests))))

    with load(causal_path, "native", threads=2, lookup=0) as model:
        requests = [AnswerRequest(prompt(3, 4, model), each) for each in settings]
        expected = []
        for request in requests:
            with model.session() as session:
                expected.append(
                    tuple(model.answer(request.prompt, request.settings, session).finish().tokens)
                )
        chosen: list[int] = []
        choose = model.choose

        def counted(samplers: Sequence[Sampler], logits: Float32) -> list[int | None]:
            chosen.append(len(samplers))
            return choose(samplers, logits)

        model.choose = counted  # type: ignore[method-assign]
        assert run(together(model, requests)) == expected
    assert chosen.count(3) > 30


def test_a_long_prompt_comes_in_pieces_and_others_go_on(causal_path: Path) -> None:
    async def scenario(model: Model) -> int:
        # A step this short leaves room for the least piece only
        async with AsyncModel(model, BatchSettings(decode_step_s=1e-6, prefill_step_s=1e-6)) as engine:
            talker = engine.submit(greedy(prompt(1, 5, model), 400))
            await anext(talker)
            before = len(talker.token_ids)
            await anext(engine.submit(greedy(prompt(2, 600, model), 4)))
            return len(talker.token_ids) - before

    with load(causal_path, "reference") as model:
        assert run(scenario(model)) >= 600 // 16 - 2


def test_cancelling_frees_the_place(causal_path: Path) -> None:
    async def scenario(model: Model) -> None:
        async with AsyncModel(model, BatchSettings(running=1, waiting=1)) as engine:
            first = engine.submit(greedy(prompt(1, 5, model), 1000))
            await anext(first)
            waiting = engine.submit(greedy(prompt(2, 5, model), 3))
            assert (engine.load_now.running, engine.load_now.waiting) == (1, 1)
            with pytest.raises(BusyError, match="waiting already"):
                engine.submit(greedy(prompt(3, 5, model), 3))
            first.cancel()
            assert len(await tokens_of(waiting)) == 3
            pieces = [piece async for piece in first]
            assert pieces[-1].finish_reason == "cancelled"
            assert (engine.load_now.running, engine.load_now.waiting) == (0, 0)

    with load(causal_path, "reference") as model:
        run(scenario(model))


def test_several_are_queued_together_or_not_at_all(causal_path: Path) -> None:
    async def scenario(model: Model) -> None:
        async with AsyncModel(model, BatchSettings(running=1, waiting=1)) as engine:
            with pytest.raises(BusyError):
                engine.submit_all([greedy(prompt(1, 5, model), 3)] * 3)
            assert engine.load_now.waiting == 0
            answers = engine.submit_all([greedy(prompt(1, 5, model), 3)] * 2)
            assert len({await tokens_of(answer) for answer in answers}) == 1

    with load(causal_path, "reference") as model:
        run(scenario(model))


def test_caches_stay_within_their_limit(causal_path: Path) -> None:
    """Answers that outgrow the memory are put back, computed again, and come out the same."""
    from pocketglm.plan.kv_cache import kv_bytes_per_token

    with load(causal_path, "reference", context=128) as model:
        requests = [greedy(prompt(i, 10, model), 100) for i in range(4)]
        expected = [alone(model, each) for each in requests]
        limit = 200 * kv_bytes_per_token(model.spec, model.kv)
        most = 0

        async def scenario() -> tuple[list[tuple[int, ...]], int]:
            nonlocal most
            async with AsyncModel(model, BatchSettings(cache_bytes=limit)) as engine:
                answers = [engine.submit(each) for each in requests]
                tasks = asyncio.gather(*map(tokens_of, answers))
                while not tasks.done():
                    await asyncio.sleep(0.001)
                    most = max(most, engine.load_now.cached_tokens)
                return await tasks, engine.load_now.preemptions

        tokens, preemptions = run(scenario())
        assert tokens == expected
        assert preemptions > 0
        assert 100 < most <= 200


def test_a_cache_smaller_than_one_context_is_refused(causal_path: Path) -> None:
    with load(causal_path, "reference") as model, pytest.raises(InputError, match="one context"):
        AsyncModel(model, BatchSettings(cache_bytes=1000))


def test_prefixes_are_shared(causal_path: Path) -> None:
    """With an answer that is done, with one that runs, and among choices of one prompt."""

    async def scenario(model: Model) -> None:
        async with AsyncModel(model) as engine:
            shared = prompt(1, 100, model)
            done = engine.submit(greedy(shared, 2))
            await tokens_of(done)
            running = engine.submit(greedy((*shared, 7, 8), 300))
            await anext(running)
            beside = engine.submit(greedy((*shared, 9), 2))
            await tokens_of(beside)
            running.cancel()
            choices = engine.submit_all([greedy(prompt(2, 200, model), 3)] * 3)
            assert len(set(await asyncio.gather(*map(tokens_of, choices)))) == 1
            assert done.statistics.reused_tokens == 0
            assert running.statistics.reused_tokens >= 101
            assert beside.statistics.reused_tokens == 101
            reused = [answer.statistics.reused_tokens for answer in choices]
            assert reused[0] <= 1
            assert reused[1:] == [200, 200]

    with load(causal_path, "reference") as model:
        run(scenario(model))


def test_a_sliding_window_goes_past_the_context(causal_path: Path) -> None:
    async def scenario(model: Model) -> tuple[tuple[int, ...], tuple[int, ...]]:
        async with AsyncModel(model) as engine:
            slides = engine.submit(greedy(prompt(1, 10, model), 100, slide=True))
            ends = engine.submit(greedy(prompt(1, 10, model), 100))
            return await tokens_of(slides), await tokens_of(ends)

    with load(causal_path, "reference", context=64) as model:
        slid, ended = run(scenario(model))
        assert (len(slid), len(ended)) == (100, 64 - 11)
        assert slid[: len(ended)] == ended


def test_an_answer_of_no_tokens(causal_path: Path) -> None:
    async def scenario(model: Model) -> None:
        async with AsyncModel(model) as engine:
            pieces = [piece async for piece in engine.submit(greedy(prompt(1, 5, model), 0))]
            assert [(piece.token, piece.finish_reason) for piece in pieces] == [(None, "length")]

    with load(causal_path, "reference") as model:
        run(scenario(model))


class FailsOnce:
    """A stage whose next call of `forward` fails, as one that runs out of memory does."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.fail = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        if self.fail:
            self.fail = False
            raise EngineError("out of memory")
        return self._stage.forward(hidden, batch)


def test_a_failed_step_ends_its_answers_and_nothing_else(causal_path: Path) -> None:
    async def scenario(model: Model) -> None:
        stage = FailsOnce(model.stages[0])
        model.stages[0] = stage  # type: ignore[assignment]
        async with AsyncModel(model) as engine:
            answer = engine.submit(greedy(prompt(1, 5, model), 500))
            await anext(answer)
            stage.fail = True
            with pytest.raises(EngineError, match="out of memory"):
                await tokens_of(answer)
            assert engine.load_now.running == 0
            assert len(await tokens_of(engine.submit(greedy(prompt(2, 5, model), 4)))) == 4

    with load(causal_path, "reference") as model:
        run(scenario(model))


def test_wrong_requests_are_refused_before_they_join(causal_path: Path, prefixed_path: Path) -> None:
    async def scenario(model: Model, request: AnswerRequest, match: str) -> None:
        async with AsyncModel(model) as engine:
            with pytest.raises(InputError, match=match):
                engine.submit(request)

    wrong = {
        "no tokens": greedy((), 3),
        "outside the vocabulary": greedy((VOCAB,), 3),
        "the prompt has 1200 tokens": greedy((1,) * 1200, 3),
        "the context holds 1200": greedy((1,) * 1201, 3),
        "top_logprobs is 21": greedy((1,), 3, top_logprobs=21),
    }
    for match, request in wrong.items():
        with load(causal_path, "reference") as model:
            run(scenario(model, request, match))
    with load(prefixed_path, "reference") as model:
        run(scenario(model, greedy((1, 2), 3), "lack <sop>"))


def test_chat_and_stream_are_those_of_the_model(causal_path: Path) -> None:
    messages = [{"role": "user", "content": "Hello"}]

    async def scenario(model: Model) -> tuple[str, str]:
        async with AsyncModel(model) as engine:
            streamed = [text async for text in engine.stream(messages, max_new_tokens=20)]
            async for _ in engine.stream(messages, max_new_tokens=1000):
                break  # given up
            return await engine.chat(messages, max_new_tokens=20), "".join(streamed)

    with load(causal_path, "reference") as model:
        expected = model.chat(messages, max_new_tokens=20)
        assert run(scenario(model)) == (expected, expected)


def test_seeded_answers_repeat_in_any_company(causal_path: Path) -> None:
    settings = SamplingSettings(temperature=1.0, seed=3, max_new_tokens=20, ignore_eos=True)

    async def scenario(model: Model) -> list[tuple[int, ...]]:
        async with AsyncModel(model) as engine:
            request = AnswerRequest(prompt(1, 9, model), settings)
            first = await tokens_of(engine.submit(request))
            beside = [engine.submit(greedy(prompt(i, 30, model), 30)) for i in range(3)]
            second = await tokens_of(engine.submit(request))
            await asyncio.gather(*map(tokens_of, beside))
            return [first, second]

    with load(causal_path, "reference") as model:
        first, second = run(scenario(model))
        assert first == second


def test_embeddings_are_the_mean_of_the_normed_hidden_states(causal_path: Path, prefixed_path: Path) -> None:
    from pocketglm.engine.reference.block import apply_norm

    async def scenario(model: Model, texts: list[tuple[int, ...]]) -> list[Float32]:
        async with AsyncModel(model, BatchSettings(prefill_step_s=1e-6)) as engine:
            return await engine.embed(texts)

    for path in (causal_path, prefixed_path):
        with load(path, "reference") as model:
            texts = [prompt(1, 5, model), prompt(2, 150, model)]
            with model.session() as session:
                hidden = session.hidden(texts[1])
            mean = apply_norm(model.spec, hidden, model.package.head().vector, "norm").mean(axis=0)
            vectors = run(scenario(model, texts))
            np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), atol=1e-5)
            assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_tokens_are_handed_over_together_but_the_first_and_the_last(causal_path: Path) -> None:
    handed: list[list[int | None]] = []
    done = threading.Event()

    def deliver(jobs: Sequence[Job]) -> None:
        (job,) = jobs
        handed.append([piece.token for piece in job.outbox])
        job.outbox.clear()
        if job.done:
            done.set()

    with load(causal_path, "reference") as model:
        request = greedy(prompt(1, 9, model), 12)
        expected = alone(model, request)
        scheduler = Scheduler(model, BatchSettings(deliver_s=1e9), deliver)
        scheduler.submit([AnswerJob(model, request)])
        assert done.wait(60)
        scheduler.stop()
    assert handed == [[expected[0]], [*expected[1:], None]]


def test_the_batch_goes_on_after_an_error_outside_the_engine(
    causal_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(causal_path, "reference") as model:
        request = greedy(prompt(1, 9, model), 5)
        expected = alone(model, request)

        def broken(session: Session) -> None:
            raise RuntimeError("no room to keep it")

        async def scenario() -> tuple[int, ...]:
            async with AsyncModel(model) as asynchronous:
                with monkeypatch.context() as patched:
                    patched.setattr(model.prefixes, "give_back", broken)
                    answers = asynchronous.submit_all([request] * 3)
                    for answer in answers:
                        with pytest.raises(EngineError, match="no room to keep it"):
                            await answer.text()
                assert asynchronous.load_now.running == asynchronous.load_now.waiting == 0
                assert asynchronous._outcomes == {}
                return await tokens_of(asynchronous.submit(request))

        assert run(scenario()) == expected
