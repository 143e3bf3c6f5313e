"""The sampler against the transformers library, and its own promises."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from pocketglm.errors import EngineError, InputError
from pocketglm.generate.sampler import Sampler, SamplingSettings, top_p_mask


def logits_of(seed: int, vocab: int = 1000, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(vocab) * spread).astype(np.float32)


def oracle(logits: np.ndarray, history: list[int], settings: SamplingSettings) -> np.ndarray:
    """Probabilities [vocab] from transformers' own processors, in its own order."""
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    steps = process.LogitsProcessorList()
    if settings.logit_bias:
        bias = [[[token], float(value)] for token, value in settings.logit_bias.items()]
        steps.append(process.SequenceBiasLogitsProcessor(bias))
    if settings.repetition_penalty != 1:
        steps.append(process.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    steps.append(process.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        steps.append(process.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        steps.append(process.TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        steps.append(process.MinPLogitsWarper(settings.min_p))
    scores = torch.from_numpy(logits[None].astype(np.float64))
    return torch.softmax(steps(torch.tensor([history]), scores), -1)[0].numpy()


CASES = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 40},
    {"temperature": 0.95, "top_p": 0.7},
    {"temperature": 3.0, "top_p": 0.999},
    {"temperature": 1.3, "min_p": 0.05},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.8, "min_p": 0.1},
    {"temperature": 1.0, "top_k": 5000},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "repetition_penalty": 1.3, "top_k": 20},
    {"temperature": 1.0, "repetition_penalty": 0.8, "logit_bias": {3: 5.0, 900: -2.5}, "top_p": 0.9},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_distribution_equals_transformers(case: dict, seed: int) -> None:
    settings = SamplingSettings(**case)
    logits, history = logits_of(seed), [5, 9, 900, 5]
    expected = oracle(logits, history, settings)
    ids, probabilities = Sampler(settings, len(logits), prompt=history).distribution(logits)
    assert ids.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_allclose(probabilities, expected[ids], rtol=1e-5)


def test_ties_at_the_edge_of_top_k_stay_as_in_transformers() -> None:
    logits = np.array([1, 3, 2, 2, 2, 0], np.float32)
    settings = SamplingSettings(temperature=1.0, top_k=2)
    ids, _ = Sampler(settings, 6).distribution(logits)
    assert ids.tolist() == [1, 2, 3, 4]
    assert ids.tolist() == np.flatnonzero(oracle(logits, [0], settings)).tolist()


def test_greedy_takes_the_largest_and_the_lowest_id_of_a_tie() -> None:
    sampler = Sampler(SamplingSettings(), 4)
    assert sampler.next(np.array([0, 7, 7, 1], np.float32)) == 1


def test_presence_and_frequency_penalties_count_the_answer_only() -> None:
    settings = SamplingSettings(presence_penalty=0.5, frequency_penalty=0.25)
    sampler = Sampler(settings, 4, prompt=[0, 0])
    for token in (2, 2, 3):
        sampler.accept(token)
    changed = sampler.penalized(np.ones(4, np.float32))
    np.testing.assert_allclose(changed, [1, 1, 1 - 0.5 - 0.5, 1 - 0.5 - 0.25])


def test_penalties_leave_the_callers_logits_alone() -> None:
    logits = logits_of(0, 50)
    before = logits.copy()
    settings = SamplingSettings(
        repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=1.0, logit_bias={1: 3.0}
    )
    sampler = Sampler(settings, 50, prompt=[1, 2], banned=[4])
    for _ in range(5):
        sampler.next(logits)
    np.testing.assert_array_equal(logits, before)


def test_banned_tokens_are_never_chosen() -> None:
    logits = np.array([9, 1, 0], np.float32)
    assert Sampler(SamplingSettings(), 3, banned=[0]).next(logits) == 1
    hot = Sampler(SamplingSettings(temperature=50.0, seed=1), 3, banned=[0])
    assert {hot.next(logits) for _ in range(100)} == {1, 2}


def test_a_logit_bias_of_minus_infinity_forbids_a_token() -> None:
    settings = SamplingSettings(logit_bias={0: -math.inf})
    assert Sampler(settings, 3).next(np.array([9, 1, 0], np.float32)) == 1


def test_a_seed_fixes_the_tokens() -> None:
    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingSettings(temperature=1.0, seed=seed), 1000)
        return [sampler.next(logits_of(step)) for step in range(20)]

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)
    assert tokens(None) != tokens(None)


def test_the_documented_draw_one_uniform_number_a_token_in_order_of_ids() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=42), 4)
    uniform = np.random.Generator(np.random.PCG64(42))
    expected = [int(np.searchsorted([0.1, 0.3, 0.6, 1.0], uniform.random(), side="right")) for _ in range(50)]
    assert [sampler.next(logits) for _ in range(50)] == expected


def test_draws_follow_the_distribution() -> None:
    probabilities = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=3), 5)
    logits = np.log(probabilities).astype(np.float32)
    count = 4000
    seen = np.bincount([sampler.next(logits) for _ in range(count)], minlength=5)
    chi_square = float((((seen - count * probabilities) ** 2) / (count * probabilities)).sum())
    assert chi_square < 18.5  # 4 degrees of freedom: passed by 999 of 1000 fair samplers


@pytest.mark.parametrize("logits", [[np.nan, 1, 2], [np.nan] * 3, [-np.inf] * 3, [1, np.inf, 0]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_engine_error(logits: list[float], temperature: float) -> None:
    sampler = Sampler(SamplingSettings(temperature=temperature), 3)
    with pytest.raises(EngineError, match="finite"):
        sampler.next(np.array(logits, np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": "hot"},
        {"temperature": True},
        {"top_p": 1.5},
        {"top_p": -0.1},
        {"min_p": 2},
        {"top_k": -1},
        {"top_k": 1.5},
        {"repetition_penalty": 0},
        {"presence_penalty": math.inf},
        {"frequency_penalty": math.nan},
        {"seed": -1},
        {"max_new_tokens": -5},
        {"stop": ("",)},
        {"stop": "text"},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {1: math.nan}},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SamplingSettings(**wrong)


def test_settings_of_a_model_and_overrides() -> None:
    defaults = {"temperature": 0.95, "top_p": 0.7, "end_tokens": [2], "top_k": None}
    assert SamplingSettings.of(defaults) == SamplingSettings(temperature=0.95, top_p=0.7)
    assert SamplingSettings.of(defaults, temperature=0.0, top_p=None).temperature == 0
    with pytest.raises(InputError, match="heat"):
        SamplingSettings.of(defaults, heat=1.0)


def test_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(InputError, match="token id 10 is outside the vocabulary of 10"):
        Sampler(SamplingSettings(logit_bias={10: 1.0}), 10)


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 0.9999, 0.999999])
@pytest.mark.parametrize("spread", [0.001, 1.0, 5.0])
def test_top_p_by_parts_equals_a_full_sort(top_p: float, spread: float) -> None:
    weights = np.exp(logits_of(1, 20_000, spread).astype(np.float64))
    probabilities = weights / weights.sum()
    order = np.argsort(-probabilities)
    above = np.cumsum(probabilities[order]) - probabilities[order]
    expected = np.sort(order[: max(1, int((above < top_p).sum()))])
    np.testing.assert_array_equal(top_p_mask(probabilities, top_p), expected)


def test_a_large_vocabulary_is_fast() -> None:
    logits = logits_of(5, 150_528, 2.0)
    settings = SamplingSettings(temperature=0.9, top_k=50, top_p=0.9, repetition_penalty=1.1, seed=0)
    sampler = Sampler(settings, len(logits), prompt=range(1000))
    began = time.perf_counter()
    for _ in range(10):
        sampler.next(logits)
    assert (time.perf_counter() - began) / 10 < 0.1  # a few ms on a quiet machine
