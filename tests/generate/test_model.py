"""The Python API: load, generate, chat, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pocketglm
from generate.tiny_models import BEGIN, END, GMASK, SOP, add_files, write_tiny
from pocketglm.errors import InputError, PackageError
from pocketglm.generate.model import Model, load
from pocketglm.generate.sampler import SamplingSettings


def test_importing_is_free() -> None:
    program = (
        "import sys, pocketglm; pocketglm.__version__; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('numpy', 'torch', 'tokenizers', 'jinja2') or m.startswith('pocketglm.')])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_running_imports_nothing_of_the_converting_half(causal_path: Path) -> None:
    program = (
        "import sys, pocketglm\n"
        f"with pocketglm.load({str(causal_path)!r}, 'reference') as model:\n"
        "    model.chat([{'role': 'user', 'content': 'hi'}], max_new_tokens=2)\n"
        "parts = ('pocketglm.checkpoint', 'pocketglm.convert', 'torch', 'transformers', 'gguf', "
        "'sentencepiece')\n"
        "print([m for m in sys.modules if m.startswith(parts)])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_names_of_the_package() -> None:
    assert pocketglm.load is load
    assert set(pocketglm.__all__) <= set(dir(pocketglm))
    with pytest.raises(AttributeError, match="nothing"):
        _ = pocketglm.nothing


def test_generate_gives_token_ids_greedily(causal: Model) -> None:
    prompt = [BEGIN, 40, 41, 42]
    with causal.session() as session:
        logits = session.forward(prompt)
    ids = list(causal.generate(prompt, max_new_tokens=5))
    assert len(ids) == 5
    assert ids[0] == int(logits[-1].argmax())
    assert ids == list(causal.generate(iter(prompt), max_new_tokens=5))


def test_generate_samples_with_a_seed(causal: Model) -> None:
    one, two, three = (
        list(causal.generate([BEGIN], 8, temperature=1.5, seed=seed, top_k=40)) for seed in (1, 1, 2)
    )
    assert one == two != three


def test_generate_refuses_unknown_settings(causal: Model) -> None:
    with pytest.raises(InputError, match="heat"):
        list(causal.generate([1], heat=2))


def test_chat_streams_what_it_answers(causal: Model) -> None:
    messages = [{"role": "user", "content": "hello"}]
    whole = causal.chat(messages, max_new_tokens=9)
    pieces = list(causal.chat(messages, stream=True, max_new_tokens=9))
    assert "".join(pieces) == whole
    prompt = causal.tokenizer.encode("<|user|>hello<|end|><|assistant|>", allow_special=True)
    assert causal.chat_prompt(messages) == prompt
    assert whole == causal.tokenizer.decode(causal.generate(prompt, 9))


def test_chat_keeps_the_cache_between_turns(causal: Model) -> None:
    turn = {"role": "user", "content": "hello"}
    answer = causal.chat([turn], max_new_tokens=4)
    held = causal.prefixes.kept[-1].token_ids
    assert list(held[: len(causal.chat_prompt([turn]))]) == causal.chat_prompt([turn])
    messages = [turn, {"role": "assistant", "content": answer}, turn]
    assert causal.chat(messages, max_new_tokens=4) == causal.tokenizer.decode(
        causal.generate(causal.chat_prompt(messages), 4)
    )


def test_two_chats_at_once_do_not_mix(causal: Model) -> None:
    one, two = ([{"role": "user", "content": text}] for text in ("first", "second"))
    expected = causal.chat(one, max_new_tokens=6), causal.chat(two, max_new_tokens=6)
    streams = [causal.chat(m, stream=True, max_new_tokens=6) for m in (one, two)]
    answers = ["", ""]
    for _ in range(8):
        for index, stream in enumerate(streams):
            answers[index] += next(stream, "")
    assert tuple(answers) == expected


def test_a_prefixed_model_chats(prefixed: Model) -> None:
    assert prefixed.prompt("hi")[-2:] == [GMASK, SOP]
    assert len(list(prefixed.generate(prefixed.prompt("hi"), 3))) == 3


def test_the_models_own_settings(tmp_path: Path) -> None:
    generation = {
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.7,
        "max_length": 900,
        "eos_token_ids": [END, 5],
        "bos_token_id": None,
    }
    path = write_tiny(tmp_path / "p", generation=generation)
    with load(path, "reference") as model:
        assert model.defaults.end_tokens == {END, 5}
        assert model.settings() == SamplingSettings(temperature=0.8, top_p=0.7, max_length=900)
        assert model.settings(temperature=0.0, max_new_tokens=3) == SamplingSettings(
            top_p=0.7, max_new_tokens=3
        )


@pytest.mark.parametrize(
    "wrong",
    [{"eos_token_ids": [999]}, {"eos_token_ids": "2"}, {"do_sample": True, "temperature": -1}],
    ids=str,
)
def test_wrong_settings_in_a_package_are_a_package_error(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = write_tiny(tmp_path / "p", generation=wrong)
    with pytest.raises(PackageError, match=r"generation\.json"):
        load(path, "reference")


def test_a_package_without_a_tokenizer_takes_token_ids_only(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "p", tokenizer=None, template=None)
    with load(path, "reference") as model:
        assert len(list(model.generate([1, 2], 4))) == 4
        for use in (lambda: model.tokenizer, lambda: model.template):
            with pytest.raises(PackageError, match=r"no tokenizer\.json"):
                use()
        with pytest.raises(InputError, match="need a tokenizer"):
            list(model.generate([1], 4, stop=("x",)))


def test_a_package_without_a_template_cannot_chat(tmp_path: Path) -> None:
    with load(write_tiny(tmp_path / "p", template=None), "reference") as model:
        assert not model.has_template
        with pytest.raises(PackageError, match="template"):
            model.chat([{"role": "user", "content": "hi"}])


def test_wrong_arguments_of_load(causal_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown engine 'steam'"):
        load(causal_path, "steam")
    with pytest.raises(InputError, match="threads is 0"):
        load(causal_path, threads=0)
    with pytest.raises(PackageError, match="no package here"):
        load(tmp_path)


def test_closing_twice_is_harmless(causal_path: Path) -> None:
    model = load(causal_path, "reference")
    model.chat([{"role": "user", "content": "hi"}], max_new_tokens=1)
    model.close()
    model.close()


def test_little_memory_gives_the_same_answer(causal_path: Path, causal: Model) -> None:
    with load(causal_path, "reference", threads=1, memory=1 << 16) as model:
        assert list(model.generate([BEGIN, 3], 5)) == list(causal.generate([BEGIN, 3], 5))


def test_a_damaged_tokenizer_names_its_file(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "p")
    add_files(path, {"tokenizer.json": json.dumps({"model": 1})})
    with load(path, "reference") as model, pytest.raises(PackageError, match=r"tokenizer\.json"):
        _ = model.tokenizer
