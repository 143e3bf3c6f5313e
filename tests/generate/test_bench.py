"""The benchmark measures what it says, with real tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from generate.tiny_models import GMASK, SOP, write_tiny
from pocketglm.errors import InputError
from pocketglm.generate.bench import BenchSettings, bench, bench_prompts, peak_rss_bytes
from pocketglm.generate.model import Model, load


@pytest.mark.parametrize("sequences", [1, 3])
def test_results_are_complete(causal_path: Path, sequences: int) -> None:
    calls: list[int] = []
    settings = BenchSettings(prompt_tokens=20, new_tokens=5, sequences=sequences, rounds=2)
    result = bench(
        causal_path, settings, engine="reference", progress=lambda step, done, total: calls.append(done)
    )
    data = result.to_dict()
    assert data["engine"] == "reference"
    assert data["sequences"] == sequences
    assert all(data[name] > 0 for name in ("load_s", "prefill_tps", "decode_tps"))
    assert data["peak_rss_bytes"] > 1 << 20
    assert calls == [0, 1]


def test_prompts_are_real_text_and_differ(causal: Model) -> None:
    prompts = bench_prompts(causal, 50, 3)
    assert [len(prompt) for prompt in prompts] == [50, 50, 50]
    assert causal.tokenizer.decode(prompts[0]).startswith("The harbour wakes")
    assert len({tuple(prompt) for prompt in prompts}) == 3
    assert len(bench_prompts(causal, 9000, 1)[0]) == 9000  # the text goes round


def test_prompts_of_a_prefixed_model_end_in_its_tokens(prefixed: Model, prefixed_path: Path) -> None:
    (prompt,) = bench_prompts(prefixed, 10, 1)
    assert prompt[-2:] == [GMASK, SOP]
    assert len(prompt) == 10
    with pytest.raises(InputError, match="expected 3 or more"):
        bench_prompts(prefixed, 2, 1)
    assert bench(prefixed_path, BenchSettings(8, 3, 2, 1), engine="reference").decode_tps > 0


def test_without_a_tokenizer_the_tokens_are_random_and_seeded(tmp_path: Path) -> None:
    with load(write_tiny(tmp_path / "p", tokenizer=None, template=None), "reference") as model:
        assert bench_prompts(model, 30, 2) == bench_prompts(model, 30, 2)


def test_sizes_that_do_not_fit_are_refused(causal_path: Path) -> None:
    with pytest.raises(InputError, match="rounds is 0"):
        BenchSettings(rounds=0)
    with pytest.raises(InputError, match="needs 1201 tokens"):
        bench(causal_path, BenchSettings(1200, 1), engine="reference")


def test_peak_memory_grows_with_use() -> None:
    before = peak_rss_bytes()
    held = bytearray(b"x" * (64 << 20))
    assert peak_rss_bytes() >= before
    assert len(held) == 64 << 20


def test_contexts_are_measured_beside_the_prompt(causal_path: Path) -> None:
    settings = BenchSettings(prompt_tokens=10, new_tokens=4, rounds=3, contexts=(5, 60))
    result = bench(causal_path, settings, engine="native", threads=1, kv="int8", context=64)
    assert [rates.context for rates in result.contexts] == [5, 60]
    data = result.to_dict()
    assert all(rates["prefill_tps"] > 0 and rates["decode_tps"] > 0 for rates in data["contexts"])
    assert data["first_prefill_tps"] > 0
    assert 0 < data["peak_anonymous_bytes"] < data["peak_rss_bytes"]
    with pytest.raises(InputError, match="needs 65 tokens, the model's context holds 64"):
        bench(causal_path, BenchSettings(10, 4, contexts=(61,)), engine="native", context=64)


def test_one_round_has_one_prefill(causal_path: Path) -> None:
    result = bench(causal_path, BenchSettings(10, 2, rounds=1), engine="reference")
    assert result.first_prefill_tps == result.prefill_tps
