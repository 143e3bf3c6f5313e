"""`pocketglm run`: prompts in, answers out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pocketglm
from cli.conftest import Command
from generate.tiny_models import BEGIN, write_tiny
from pocketglm.cli.options import parse_backend
from pocketglm.generate.answer_text import tidy_answer


def test_the_answer_is_the_models(command: Command, package: Path) -> None:
    result = command("run", package, "hello", "--max-tokens", 12)
    with pocketglm.load(package, "reference") as model:
        expected = model.chat([{"role": "user", "content": "hello"}], max_new_tokens=12)
    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") == expected.rstrip("\n")
    assert result.stderr == ""


def test_json_holds_everything_about_the_answer(command: Command, package: Path) -> None:
    result = command("run", package, "hello", "--max-tokens", 12, "--engine", "reference", "--json")
    data = json.loads(result.stdout)
    with pocketglm.load(package, "reference") as model:
        prompt = model.chat_prompt([{"role": "user", "content": "hello"}])
        assert data["token_ids"] == list(model.generate(prompt, 12))
        assert data["text"] == model.tokenizer.decode(data["token_ids"])
    assert data["engine"] == "reference"
    assert data["finish_reason"] == "length"
    assert (data["prompt_tokens"], data["generated_tokens"]) == (len(prompt), 12)
    assert data["prefill_tps"] > 0


def test_raw_continues_the_text(command: Command, package: Path) -> None:
    data = json.loads(command("run", package, "ab", "--raw", "--max-tokens", 5, "--json").stdout)
    with pocketglm.load(package, "reference") as model:
        prompt = model.prompt("ab")
        assert prompt[0] == BEGIN
        assert data["token_ids"] == list(model.generate(prompt, 5))


def test_a_model_without_a_template_continues_too(command: Command, package: Path, tmp_path: Path) -> None:
    plain = write_tiny(tmp_path / "p", template=None, generation={})
    results = [
        command("run", p, "ab", "--max-tokens", 5, *o) for p, o in ((plain, ()), (package, ("--raw",)))
    ]
    assert results[0].stdout == results[1].stdout
    assert results[0].exit_code == 0


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_the_prompt_may_come_from_standard_input(
    command: Command, package: Path, arguments: list[str]
) -> None:
    given = command("run", package, "你好\nworld", "--max-tokens", 6)
    piped = command("run", package, *arguments, "--max-tokens", 6, input="你好\nworld\n")
    assert piped.stdout == given.stdout


def test_standard_input_that_is_no_text(command: Command, package: Path) -> None:
    result = command("run", package, input=b"\xff\xfe\x00")
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr


def test_sampling_options_reach_the_sampler(command: Command, package: Path) -> None:
    options = ["--temperature", 1.5, "--top-k", 50, "--top-p", 0.9, "--min-p", 0.01]
    options += ["--repetition-penalty", 1.1, "--presence-penalty", 0.1, "--frequency-penalty", 0.1]
    tries = [
        json.loads(command("run", package, "x", "--max-tokens", 8, "--json", *options, "--seed", s).stdout)
        for s in (1, 1, 2)
    ]
    assert tries[0]["token_ids"] == tries[1]["token_ids"] != tries[2]["token_ids"]
    with pocketglm.load(package, "reference") as model:
        prompt = model.chat_prompt([{"role": "user", "content": "x"}])
        sampling = {"top_k": 50, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}
        sampling |= {"presence_penalty": 0.1, "frequency_penalty": 0.1}
        ids = model.generate(prompt, 8, temperature=1.5, seed=1, **sampling)
        assert tries[0]["token_ids"] == list(ids)


def test_stop_texts(command: Command, package: Path) -> None:
    whole = json.loads(command("run", package, "x", "--max-tokens", 10, "--json").stdout)["text"]
    data = json.loads(
        command(
            "run", package, "x", "--max-tokens", 10, "--json", "--stop", whole[3:5], "--stop", "@@"
        ).stdout
    )
    assert data["text"] == whole[: whole.index(whole[3:5])]
    assert data["finish_reason"] == "stop"


def test_end_tokens_and_ignore_eos(command: Command, package: Path, tmp_path: Path) -> None:
    first = json.loads(command("run", package, "x", "--max-tokens", 1, "--json").stdout)["token_ids"][0]
    path = write_tiny(tmp_path / "p", generation={"eos_token_ids": [first]})
    data = json.loads(command("run", path, "x", "--max-tokens", 3, "--json").stdout)
    assert (data["token_ids"], data["finish_reason"]) == ([], "stop")
    data = json.loads(command("run", path, "x", "--max-tokens", 3, "--json", "--ignore-eos").stdout)
    assert len(data["token_ids"]) == 3


def test_a_system_prompt_goes_into_the_template(command: Command, package: Path) -> None:
    plain = json.loads(command("run", package, "x", "--json", "--max-tokens", 1).stdout)
    system = json.loads(command("run", package, "x", "--json", "--max-tokens", 1, "--system", "ab").stdout)
    # <|system|> is no token of this model, so its ten characters count, then "ab" and <|end|>
    assert system["prompt_tokens"] == plain["prompt_tokens"] + 10 + 2 + 1
    refused = command("run", package, "x", "--system", "ab", "--raw")
    assert refused.exit_code == 2
    assert "--system does not go with --raw" in refused.stderr


def test_tidy_answers(command: Command, package: Path) -> None:
    whole = json.loads(command("run", package, "x", "--max-tokens", 9, "--json").stdout)["text"]
    result = command("run", package, "x", "--max-tokens", 9, "--tidy")
    assert result.stdout == tidy_answer(whole) + "\n"
    data = json.loads(command("run", package, "x", "--max-tokens", 9, "--tidy", "--json").stdout)
    assert data["text"] == tidy_answer(whole)


def test_stats_go_to_standard_error(command: Command, package: Path) -> None:
    result = command("run", package, "x", "--max-tokens", 4, "--stats", "--threads", 1, "--memory", "1GiB")
    assert result.stderr.startswith("[4 tokens at ")
    assert "tokens/s" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["x", "--engine", "steam"], 2, "unknown engine 'steam'"),
        (["x" * 1200], 2, "context holds 1200"),
        (["x", "--seed", "-1"], 2, "--seed"),
        (["x", "--temperature", "1000"], 2, "temperature is 1000"),
        (["x", "--stop", ""], 2, "non-empty"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_done_is_told(
    command: Command, package: Path, arguments: list[str], code: int, text: str
) -> None:
    result = command("run", package, *arguments)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""


def test_a_real_story(command: Command, shared_data: Path, tmp_path: Path) -> None:
    """stories260K, whose greedy text was made with its author's program."""
    source = shared_data / "stories260k"
    assert command("convert", source, "-o", tmp_path / "p", "--bits", 32).exit_code == 0
    result = command("run", tmp_path / "p", "", "--raw", "--max-tokens", 100)
    story = (source / "greedy.txt").read_text()
    assert len(result.stdout) > 200
    assert story.startswith(result.stdout.rstrip("\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("opencl", "opencl"),
        ("0-2=cuda,3=cpu,head=cpu", {0: "cuda", 1: "cuda", 2: "cuda", 3: "cpu", "head": "cpu"}),
    ],
)
def test_backends_are_named_for_all_or_by_block(text: str, expected: object) -> None:
    assert parse_backend(text) == expected


@pytest.mark.parametrize("text", ["0-=x=", "=cpu", "a=cpu", "0=", "1-b=cpu"])
def test_malformed_backends(command: Command, package: Path, text: str) -> None:
    assert command("run", package, "x", "--backend", text).exit_code == 2


def test_a_backend_that_is_not_there(command: Command, package: Path) -> None:
    result = command("run", package, "x", "--engine", "reference", "--backend", "cuda")
    assert result.exit_code == 6
    assert "engine reference has no backend 'cuda' here" in result.stderr
    assert "it has cpu" in result.stderr
