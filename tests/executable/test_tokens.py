"""The executable's tokens are those of the Python session on the native engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketglm
from engine.checkpoints import convert_float32
from engine.contract_specs import FORMATS, SPECS, prompt
from engine.tiny_packages import random_tensors, write_package
from executable.engine_process import EngineProcess, assert_same_tokens
from pocketglm.generate.sampler import SamplingSettings

CONVERTED = ["chatglm-v1-tiny", "chatglm2-tiny"]


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


def tiny(folder: Path, spec: str, weight_format: str) -> Path:
    return write_package(folder, SPECS[spec], random_tensors(SPECS[spec]), FORMATS[weight_format])


def python_tokens(package: Path, prompt_ids: list[int], **settings: Any) -> list[int]:
    with pocketglm.load(package, engine="native") as model:
        return list(model.generate(prompt_ids, **settings))


@pytest.mark.parametrize("spec", SPECS)
def test_greedy_tokens_of_every_spec(engine: EngineProcess, tmp_path: Path, spec: str) -> None:
    for name in ("float32", "int4-g32"):
        package = tiny(tmp_path / name, spec, name)
        ids = prompt(SPECS[spec], 30)
        engine.load(package)
        found, done = engine.generate(ids, max_tokens=60)
        assert_same_tokens(found, python_tokens(package, ids, max_new_tokens=60))
        assert (done["reason"], done["generated_tokens"], done["prompt_tokens"]) == ("length", 60, 30)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_greedy_tokens_of_every_format(engine: EngineProcess, tmp_path: Path, weight_format: str) -> None:
    package = tiny(tmp_path / "p", "llama3_scaling_odd_sizes", weight_format)
    ids = prompt(SPECS["llama3_scaling_odd_sizes"], 30)
    engine.load(package)
    assert_same_tokens(engine.generate(ids, max_tokens=40)[0], python_tokens(package, ids, max_new_tokens=40))


SAMPLED = [
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 3.0, "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
]


@pytest.mark.parametrize("settings", SAMPLED, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 12345678901234567, 2**63 - 1])
def test_a_seed_gives_pythons_tokens(
    engine: EngineProcess, tmp_path: Path, settings: dict[str, Any], seed: int
) -> None:
    package = tiny(tmp_path / "p", "plain", "int8-g64")
    ids = prompt(SPECS["plain"], 10)
    engine.load(package)
    expected = python_tokens(package, ids, max_new_tokens=80, seed=seed, **settings)
    assert_same_tokens(engine.generate(ids, max_tokens=80, seed=seed, **settings)[0], expected)
    assert len(set(expected)) > 5


def test_without_a_seed_answers_differ(engine: EngineProcess, tmp_path: Path) -> None:
    engine.load(tiny(tmp_path / "p", "plain", "int8-g64"))
    answers = [engine.generate([1, 2], max_tokens=40, temperature=2.0)[0] for _ in range(2)]
    assert answers[0] != answers[1]


def test_bias_bans_and_end_tokens(engine: EngineProcess, tmp_path: Path) -> None:
    package = tiny(tmp_path / "p", "plain", "float32")
    ids = prompt(SPECS["plain"], 10)
    engine.load(package)
    first = engine.generate(ids, max_tokens=3)[0]
    assert engine.generate(ids, max_tokens=1, logit_bias={"7": 1000})[0] == [7]
    found, done = engine.generate(ids, max_tokens=3, end_tokens=[49, first[1]])
    assert (found, done["reason"]) == (first[:1], "stop")
    found, done = engine.generate(ids, max_tokens=3, end_tokens=[first[0]], ignore_end=True)
    assert first[0] not in found
    assert done["reason"] == "length"


@pytest.mark.parametrize("name", CONVERTED)
def test_golden_models(engine: EngineProcess, golden: Path, tmp_path: Path, name: str) -> None:
    package = convert_float32(golden / name, tmp_path / "p")
    expected = np.load(golden / name / "golden.npz")
    prompt_ids, greedy_ids = expected["prompt_ids"].tolist(), expected["greedy_ids"].tolist()
    engine.load(package, kv="float32")
    assert engine.generate(prompt_ids, max_tokens=len(greedy_ids))[0] == greedy_ids


def test_stories260k_tells_its_story(engine: EngineProcess, shared_data: Path, tmp_path: Path) -> None:
    import json

    ids = json.loads((shared_data / "stories260k" / "greedy_ids.json").read_text())
    engine.load(convert_float32(shared_data / "stories260k", tmp_path / "p"), kv="float32")
    assert engine.generate(ids[:1], max_tokens=len(ids) - 1)[0] == ids[1:]


@pytest.mark.parametrize("spec", ["plain", "sliding_window", "prefix_2d_alpha_layernorm_gelu"])
def test_a_shared_prefix_is_reused_and_changes_nothing(
    engine: EngineProcess, tmp_path: Path, spec: str
) -> None:
    package = tiny(tmp_path / "p", spec, "float32")
    ids = prompt(SPECS[spec], 40)
    engine.load(package, kv="float32")
    first, done = engine.generate(ids, max_tokens=10)
    assert done["reused_tokens"] == 0
    longer = [*ids, *first, 3, 1, 4]
    for prompt_ids, reused in ((longer, 49), ([*ids[:20], 9, 9], 20), ([*ids[:20], 9, 9], 21)):
        found, done = engine.generate(prompt_ids, max_tokens=10)
        assert done["reused_tokens"] == reused
        assert_same_tokens(found, python_tokens(package, prompt_ids, max_new_tokens=10))


def test_a_changed_bidirectional_context_is_computed_anew(engine: EngineProcess, tmp_path: Path) -> None:
    spec = "prefix_2d_alpha_layernorm_gelu"
    package = tiny(tmp_path / "p", spec, "float32")
    ids = prompt(SPECS[spec], 20)
    engine.load(package, kv="float32")
    engine.generate(ids, max_tokens=2)
    for changed in ([ids[0] + 1, *ids[1:]], ids[1:]):
        found, done = engine.generate(changed, max_tokens=10)
        assert done["reused_tokens"] == 0
        assert_same_tokens(found, python_tokens(package, changed, max_new_tokens=10))


def test_long_prompts_go_in_pieces(engine: EngineProcess, tmp_path: Path) -> None:
    from dataclasses import replace

    spec = replace(SPECS["plain"], max_context=3000)
    package = write_package(tmp_path / "p", spec, random_tensors(spec), FORMATS["int8-g64"])
    ids = prompt(spec, 1500)
    engine.load(package)
    assert_same_tokens(engine.generate(ids, max_tokens=20)[0], python_tokens(package, ids, max_new_tokens=20))


@pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
@pytest.mark.parametrize("threads", [1, 3])
def test_options_of_a_load_hold(engine: EngineProcess, tmp_path: Path, kv: str, threads: int) -> None:
    loaded = engine.load(
        tiny(tmp_path / "p", "plain", "float32"), kv=kv, threads=threads, isa="scalar", context=50
    )
    assert {key: loaded[key] for key in ("kv", "threads", "isa", "context")} == {
        "kv": kv,
        "threads": threads,
        "isa": "scalar",
        "context": 50,
    }
    found, done = engine.generate(range(1, 41))
    assert (len(found), done["reason"]) == (10, "length")


def test_smollm2_in_int4(engine: EngineProcess, smollm2: Path, tmp_path: Path) -> None:
    from pocketglm.convert import ConvertSettings, convert

    package = convert(smollm2, tmp_path / "p", ConvertSettings(report=False))
    with pocketglm.load(package, engine="native") as model:
        ids = model.prompt("The capital of France is")
        settings = SamplingSettings(temperature=0.7, top_p=0.9, seed=3, max_new_tokens=30)
        with model.session() as session:
            expected = model.answer(ids, settings, session).finish().tokens
    engine.load(package)
    found, _ = engine.generate(
        ids, max_tokens=30, temperature=0.7, top_p=0.9, seed=3, end_tokens=list(model.defaults.end_tokens)
    )
    assert_same_tokens(found, expected)
