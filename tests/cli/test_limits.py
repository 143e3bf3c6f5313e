"""Options about caches and memory: `--kv`, `--context`, `--lookup`, `--session`, `--contexts`, `--memory`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.conftest import Command
from generate.tiny_models import write_tiny
from pocketglm.errors import InputError
from pocketglm.generate.model import load


def answer(command: Command, package: Path, *options: object) -> dict[str, Any]:
    result = command("run", package, "hello hello hello", "--json", "--max-tokens", 40, *options)
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
def test_kv_is_the_native_engines_choice(command: Command, package: Path, kv: str) -> None:
    assert len(answer(command, package, "--kv", kv)["token_ids"]) == 40


@pytest.mark.parametrize("name", ["run", "chat", "bench", "eval"])
def test_kv_is_refused_where_there_is_no_choice(
    command: Command, package: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "text").write_text("some text")
    more = {"run": ["hi"], "eval": ["--text", tmp_path / "text"]}.get(name, [])
    result = command(name, package, *more, "--engine", "reference", "--kv", "int8", input="")
    assert "engine reference has no choice of KV caches" in result.stderr
    assert result.exit_code == 6
    wrong = command(name, package, *more, "--kv", "int3", input="")
    assert "'int3' is not one of float32, float16, int8" in " ".join(wrong.stderr.replace("│", " ").split())
    assert wrong.exit_code == 2


def test_an_unknown_kv_in_python_names_what_there_is(package: Path) -> None:
    from pocketglm.errors import EngineError

    with pytest.raises(EngineError, match="no KV cache of 'int3'") as error:
        load(package, "native", kv="int3")  # type: ignore[arg-type]
    assert "float16" in str(error.value.hint)


def test_the_context_limits_the_answer(command: Command, package: Path) -> None:
    made = answer(command, package, "--context", 50)
    assert made["prompt_tokens"] + made["generated_tokens"] == 50
    result = command("run", package, "hello" * 30, "--context", 20)
    assert "the context was limited to 20" in result.stderr
    assert result.exit_code == 2


def test_lookup_is_counted_and_changes_nothing(command: Command, package: Path) -> None:
    without, with_three, default = (
        answer(command, package, *options) for options in (("--lookup", 0), ("--lookup", 3), ())
    )
    assert without["token_ids"] == with_three["token_ids"] == default["token_ids"]
    assert without["drafted_tokens"] == 0
    assert with_three["drafted_tokens"] == default["drafted_tokens"] >= with_three["accepted_tokens"]
    assert command("run", package, "hi", "--lookup", 65).exit_code == 2


class TestSessionFile:
    @pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
    def test_run_goes_on_with_it(self, command: Command, package: Path, tmp_path: Path, kv: str) -> None:
        file = tmp_path / "session.npz"
        first = answer(command, package, "--session", file, "--kv", kv)
        again = answer(command, package, "--session", file, "--kv", kv)
        assert first["reused_tokens"] == 0
        assert again["reused_tokens"] == first["prompt_tokens"] - 1
        assert again["token_ids"] == first["token_ids"]

    @pytest.mark.parametrize(("kv", "dtype"), [("float32", "f4"), ("float16", "f2"), ("int8", "f2")])
    def test_small_caches_make_small_files(
        self, command: Command, package: Path, tmp_path: Path, kv: str, dtype: str
    ) -> None:
        file = tmp_path / "session.npz"
        answer(command, package, "--session", file, "--kv", kv)
        with np.load(file) as data:
            assert data["keys"].dtype == data["values"].dtype == np.dtype(dtype)

    @pytest.mark.parametrize("kv", ["float32", "float16"])
    def test_nothing_is_lost(self, package: Path, tmp_path: Path, kv: Any) -> None:
        with load(package, "native", kv=kv) as model, model.session() as one, model.session() as two:
            one.forward(range(1, 90))
            one.save(tmp_path / "s.npz")
            two.restore(tmp_path / "s.npz")
            assert np.array_equal(one.forward([7]), two.forward([7]))

    def test_chat_goes_on_with_it(self, command: Command, package: Path, tmp_path: Path) -> None:
        file, talk = tmp_path / "session.npz", tmp_path / "talk.json"
        options = ("--session", file, "--max-tokens", 8)
        command("chat", package, *options, input=f"hello\n/save {talk}\n")
        result = command("chat", package, *options, "--load", talk, input="more\n/stats\n")
        assert "from the cache" in result.stderr
        reused = next(line for line in result.stderr.splitlines() if line.startswith("reused tokens"))
        assert int(reused.split()[-1]) >= 8  # the first question through the template

    def test_of_another_package_it_is_refused(self, command: Command, package: Path, tmp_path: Path) -> None:
        file = tmp_path / "session.npz"
        answer(command, package, "--session", file)
        other = write_tiny(tmp_path / "other", seed=1)
        result = command("run", other, "hello", "--session", file)
        assert "saved with another package" in result.stderr
        assert result.exit_code == InputError.exit_code


def test_bench_measures_contexts(command: Command, package: Path) -> None:
    sizes = ("--prompt-tokens", 8, "--new-tokens", 2, "--rounds", 2)
    data = json.loads(command("bench", package, *sizes, "--contexts", "4,20", "--json").stdout)
    assert [rates["context"] for rates in data["contexts"]] == [4, 20]
    shown = command("bench", package, *sizes, "--contexts", "4,20").stdout
    assert "at 20 tokens" in shown
    assert "the first" in shown
    assert command("bench", package, "--contexts", "4,x").exit_code == 2


def test_too_little_memory_says_what_would_do(command: Command, package: Path) -> None:
    result = command("run", package, "hi", "--memory", "64MiB")
    assert result.exit_code == 6
    assert "at least" in result.stderr
    assert "KV caches of 1200 tokens" in result.stderr
