"""A real model, the whole way: the same text as transformers, and what int4 costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pocketglm
from pocketglm.convert import ConvertSettings, convert
from pocketglm.generate.perplexity import evaluate
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings, head_format

MESSAGES = [{"role": "user", "content": "Explain in detail how a sailing boat works."}]
TEXT = Path(__file__).parents[1] / "bench" / "evaluation_text.txt"

Package = Callable[..., Path]


@pytest.fixture(scope="module")
def package(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """SmolLM2 converted to a format, once for each."""
    made: dict[WeightFormat, Path] = {}

    def get(weight_format: WeightFormat) -> Path:
        if weight_format not in made:
            output = tmp_path_factory.mktemp("smollm2") / "package"
            settings = ConvertSettings(
                QuantizeSettings(weight_format, head_format(weight_format)), report=False
            )
            made[weight_format] = convert(smollm2, output, settings)
        return made[weight_format]

    return get


@pytest.fixture(scope="module")
def transformers_answer(smollm2: Path) -> tuple[list[int], list[int], Any]:
    """Prompt ids, 64 greedy ids and prompt logits of the transformers library on the same GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    model = AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32)
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        logits = model(**prompt).logits[0].numpy()
        ids = model.generate(**prompt, max_new_tokens=64, do_sample=False, eos_token_id=None)
    prompt_ids = prompt["input_ids"][0].tolist()
    return prompt_ids, ids[0, len(prompt_ids) :].tolist(), logits


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_greedy_answer_is_that_of_transformers(
    package: Package, transformers_answer: tuple[list[int], list[int], Any]
) -> None:
    prompt_ids, expected, logits = transformers_answer
    with pocketglm.load(package(WeightFormat(32)), "reference", threads=1) as model:
        assert model.chat_prompt(MESSAGES) == prompt_ids
        found = model.session().forward(prompt_ids)
        np.testing.assert_allclose(found, logits, atol=1e-3)
        assert list(model.generate(prompt_ids, max_new_tokens=64)) == expected


def test_native_engine_agrees_with_the_reference(package: Package) -> None:
    """8-bit activations cost almost nothing: a KL divergence below 1e-3 (it is 5.5e-4)."""
    path = package(WeightFormat(4, 32))
    with pocketglm.load(path, "native") as model, pocketglm.load(path, "reference", threads=1) as exact:
        ids = model.tokenizer.encode(TEXT.read_text("utf-8"))[:1024]
        found = evaluate(model, ids, reference=exact, window=512)
    assert found.kl is not None
    assert found.kl < 1e-3


def perplexity(package: Path) -> float:
    with pocketglm.load(package, "reference", threads=1) as model:
        ids = model.tokenizer.encode(TEXT.read_text("utf-8"))
        assert len(ids) > 2000
        return evaluate(model, ids, window=512).perplexity


def test_int4_keeps_the_perplexity(package: Package) -> None:
    exact = perplexity(package(WeightFormat(32)))
    assert perplexity(package(WeightFormat(4, 32))) == pytest.approx(exact, rel=0.02)


def test_int4_answers_in_words(package: Package) -> None:
    with pocketglm.load(package(WeightFormat(4, 32)), threads=1) as model:
        answer = model.chat([{"role": "user", "content": "What is the capital of France?"}], temperature=0)
        assert "Paris" in answer
