"""The C++ sampler against its NumPy reference: the same ids, probabilities and tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketglm.errors import EngineError
from pocketglm.generate.model import load
from pocketglm.generate.sampler import Sampler, SamplingSettings

_engine = pytest.importorskip("pocketglm.engine.native._engine")

Float32 = NDArray[np.float32]


def pair(case: dict[str, Any], vocab: int, **rest: Any) -> tuple[Sampler, Sampler]:
    """The same sampler in C++ and in NumPy."""
    chosen = SamplingSettings(**case)
    return Sampler(chosen, vocab, **rest), Sampler(chosen, vocab, native=False, **rest)


def native_distribution(sampler: Sampler, logits: Float32) -> tuple[NDArray[Any], NDArray[Any]]:
    ids, probabilities = np.empty(len(logits), np.int32), np.empty(len(logits), np.float64)
    assert sampler._native is not None
    count = sampler._native.distribution(logits, ids, probabilities)
    return ids[:count], probabilities[:count]


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], int, Float32, dict[str, list[int]]]:
    """Settings, a vocabulary, logits with many ties or none, a prompt and bans."""
    vocab = draw(st.sampled_from([1, 2, 7, 40, 300, 3000]))
    token = st.integers(0, vocab - 1)
    case = {
        "temperature": draw(st.sampled_from([1e-6, 0.3, 0.7, 1.0, 2.5, 100.0])),
        "top_k": draw(st.sampled_from([0, 1, 2, 5, 50, 300, 10**20])),
        "top_p": draw(st.sampled_from([1.0, 0.0, 0.3, 0.717, 0.95, 0.9999])),
        "min_p": draw(st.sampled_from([0.0, 0.03, 0.5, 1.0])),
        "repetition_penalty": draw(st.sampled_from([1.0, 0.7, 1.3])),
        "presence_penalty": draw(st.sampled_from([0.0, 0.6, -1.5])),
        "frequency_penalty": draw(st.sampled_from([0.0, 0.3, -0.1])),
        "logit_bias": draw(st.dictionaries(token, st.floats(-20, 20, width=32), max_size=3)),
        "seed": draw(st.integers(0, 2**70)),
    }
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    logits = generator.standard_normal(vocab) * draw(st.sampled_from([0.0, 1.0, 8.0]))
    if draw(st.booleans()):
        logits = np.round(logits * 2) / 2
    banned = draw(st.lists(token, max_size=2)) if vocab > 2 else []
    rest = {"prompt": draw(st.lists(token, max_size=5)), "banned": banned}
    return case, vocab, logits.astype(np.float32), rest


def cut_is_close(settings: SamplingSettings, probabilities: NDArray[Any]) -> bool:
    """Whether rounding may decide which tokens top-p or min-p keep."""
    ordered = np.sort(probabilities)[::-1]
    sums = np.cumsum(ordered)
    return bool(
        (np.abs(sums - settings.top_p) < 1e-12).any()
        or (np.abs(ordered / ordered[0] - settings.min_p) < 1e-12).any()
    )


@settings(max_examples=400, deadline=None)
@given(cases())
def test_same_distribution_and_same_tokens(drawn: Any) -> None:
    case, vocab, logits, rest = drawn
    native, reference = pair(case, vocab, **rest)
    for _ in range(4):
        ids, probabilities = native_distribution(native, logits)
        expected_ids, expected = reference.distribution(logits)
        if ids.tolist() != expected_ids.tolist():
            before = SamplingSettings(**{**case, "top_p": 1.0, "min_p": 0.0})
            full = Sampler(before, vocab, native=False, **rest)
            for token, count in reference._generated.items():
                for _ in range(count):
                    full.accept(token)
            assert cut_is_close(reference.settings, full.distribution(logits)[1])
            return
        np.testing.assert_allclose(probabilities, expected, rtol=1e-11, atol=1e-300)
        assert native.next(logits) == reference.next(logits)


@pytest.mark.parametrize("vocab", [5, 16, 17, 130_528])
def test_greedy_is_the_lowest_id_of_a_tie(vocab: int) -> None:
    logits = np.zeros(vocab, np.float32)
    logits[[3, vocab - 1]] = 7
    for sampler in pair({}, vocab):
        assert sampler.next(logits) == 3


def test_large_vocabulary_every_uniform_number_gives_the_same_token() -> None:
    generator = np.random.default_rng(3)
    logits = (generator.standard_normal(130_528) * 2).astype(np.float32)
    for case in ({"temperature": 1.0}, {"temperature": 0.9, "top_p": 0.9}, {"temperature": 0.8, "top_k": 50}):
        native, reference = pair({**case, "seed": 5}, len(logits))
        assert [native.next(logits) for _ in range(50)] == [reference.next(logits) for _ in range(50)]


@pytest.mark.parametrize("place", [0, 1, 15, 16, 99])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_wrong_logit_anywhere_is_refused(place: int, wrong: float, temperature: float) -> None:
    logits = np.zeros(100, np.float32)
    logits[place] = wrong
    for sampler in pair({"temperature": temperature}, 100):
        with pytest.raises(EngineError, match=r"no finite maximum: it is (nan|inf)"):
            sampler.next(logits)


def test_tokens_chosen_elsewhere_count_in_both() -> None:
    case = {"frequency_penalty": 2.0}
    logits = np.array([1.0, 0.5, 0.0], np.float32)
    for sampler in pair(case, 3):
        sampler.accept(0)
        assert [sampler.next(logits) for _ in range(3)] == [1, 2, 0]


def test_logits_in_other_layouts_are_taken() -> None:
    logits = np.arange(20, dtype=np.float64)[::2]
    native, reference = pair({}, 10)
    assert native.next(logits) == reference.next(logits) == 9  # type: ignore[arg-type]


def test_the_binding_refuses_what_does_not_fit() -> None:
    arguments = (1.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0)
    sampler = _engine.Sampler(*arguments, 4)
    with pytest.raises(ValueError, match="fit the vocabulary"):
        sampler.next(np.zeros(3, np.float32), 0.5)
    with pytest.raises(ValueError, match="uniform"):
        sampler.next(np.zeros(4, np.float32), 1.0)
    with pytest.raises(ValueError, match="token id 4"):
        sampler.see(np.array([4], np.int32))
    with pytest.raises(ValueError, match="bias of token 1"):
        sampler.bias(np.array([1], np.int32), np.array([np.inf], np.float32))
    with pytest.raises(ValueError, match="temperature"):
        _engine.Sampler(np.nan, *arguments[1:], 4)
    with pytest.raises(ValueError, match="vocabulary is empty"):
        _engine.Sampler(*arguments, 0)


def test_without_the_extension_numpy_chooses() -> None:
    """And importing the sampler does not load the engine."""
    code = (
        "import sys, numpy as np\n"
        "from pocketglm.generate.sampler import Sampler, SamplingSettings\n"
        "assert 'pocketglm.engine.native._engine' not in sys.modules\n"
        "sys.modules['pocketglm.engine.native._engine'] = None\n"
        "sampler = Sampler(SamplingSettings(temperature=1.0, seed=1), 3)\n"
        "assert sampler._native is None\n"
        "print(sampler.next(np.array([0, 9, 0], np.float32)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


MIXED = [
    SamplingSettings(),
    SamplingSettings(temperature=0.8, seed=1),
    SamplingSettings(temperature=1.0, top_p=0.9, seed=2),
    SamplingSettings(temperature=0.7, top_k=20, repetition_penalty=1.2, seed=3),
    SamplingSettings(logit_bias={5: 4.0}),
]


def test_chosen_together_as_alone(causal_path: Path) -> None:
    with load(causal_path, "native", threads=2) as model:
        size = model.spec.vocab_size
        together, alone = ([Sampler(each, size, [1, 2], [3]) for each in MIXED] for _ in range(2))
        generator = np.random.default_rng(0)
        for _ in range(50):
            logits = (generator.standard_normal((len(MIXED), size)) * 3).astype(np.float32)
            expected = [sampler.next(row) for sampler, row in zip(alone, logits, strict=True)]
            assert model.choose(together, logits) == expected


def test_a_row_without_a_choice_leaves_the_others(causal_path: Path) -> None:
    with load(causal_path, "native", threads=2) as model:
        size = model.spec.vocab_size
        samplers = [Sampler(SamplingSettings(presence_penalty=2.0), size) for _ in range(3)]
        logits = np.zeros((3, size), np.float32)
        logits[:, 7] = 1
        logits[1, 0] = np.nan
        assert model.choose(samplers, logits) == [7, None, 7]
        with pytest.raises(EngineError, match="no finite maximum"):
            samplers[1].next(logits[1])
        assert samplers[1].next(logits[0]) == 7  # nothing was counted, so nothing is penalized


def test_refused_to_choose_together(causal_path: Path) -> None:
    with load(causal_path, "native", threads=2) as model:
        size = model.spec.vocab_size
        one, other = Sampler(SamplingSettings(), size), Sampler(SamplingSettings(), size + 1)
        logits = np.zeros((2, size), np.float32)
        with pytest.raises(EngineError, match="two rows have one sampler"):
            model.choose([one, one], logits)
        with pytest.raises(EngineError, match="another vocabulary"):
            model.choose([one, other], logits)
        with pytest.raises(EngineError, match="do not belong together"):
            model.choose([one], logits)


def test_other_heads_leave_the_choice_to_each_sampler(causal_path: Path) -> None:
    with load(causal_path, "reference") as model:
        samplers = [Sampler(SamplingSettings(), model.spec.vocab_size) for _ in range(2)]
        assert model.choose(samplers, np.zeros((2, model.spec.vocab_size), np.float32)) == [None, None]


@pytest.mark.parametrize("banned", [[9], [9, 4], [0]])
def test_bans_that_meet_the_most_probable_token(banned: list[int]) -> None:
    native, reference = pair({"temperature": 0.0}, 300, banned=banned)
    logits = np.zeros(300, np.float32)
    logits[[9, 4, 77]] = [3, 2, 1]
    assert native.next(logits) == reference.next(logits) == {9: 4, 4: 77, 0: 9}[banned[-1]]
