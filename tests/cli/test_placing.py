"""`--place`, `--gpu-layers`, `--gpu-memory`: commands take a placement and say it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.conftest import Command, Program
from pocketglm.cli import measure, placing
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.package.reader import Package
from pocketglm.plan.placement import Placement
from pocketglm.plan.planner import Limits

CPU = ("--backend", "cpu")
"""The device that PyTorch has everywhere."""


def answer(command: Command, package: Path, *options: object) -> dict[str, Any]:
    result = command("run", package, "hello hello", "--json", "--max-tokens", 20, *options)
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def test_run_says_where_the_blocks_were(command: Command, package: Path) -> None:
    alone = answer(command, package)
    assert alone["placement"] is None
    text = "gpu:0,ram:1,disk:2,ram:head"
    made = answer(command, package, "--place", text, *CPU)
    assert (made["engine"], made["placement"]) == ("torch+native", text)
    assert made["token_ids"] == alone["token_ids"]


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (0, "ram:0-2,ram:head"),
        (2, "gpu:0-1,ram:2,ram:head"),
        (3, "gpu:0-2,gpu:head"),
        (9, "gpu:0-2,gpu:head"),
    ],
)
def test_gpu_layers_are_the_first_blocks(command: Command, package: Path, layers: int, text: str) -> None:
    assert answer(command, package, "--gpu-layers", layers, *CPU)["placement"] == text


def test_a_file_says_everything_and_options_say_more(command: Command, package: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    placement = Placement.parse("gpu:0,ram:1-2", gpu_backend="cpu", kv="int8", context=40)
    file.write_text(json.dumps({"speed": 3, "placement": placement.to_dict()}))
    made = answer(command, package, "--place", file, "--max-tokens", 1000)
    assert made["placement"] == "gpu:0,ram:1-2,ram:head"
    assert made["prompt_tokens"] + made["generated_tokens"] == 40
    made = answer(command, package, "--place", file, "--max-tokens", 1000, "--context", 30)
    assert made["prompt_tokens"] + made["generated_tokens"] == 30
    made = answer(command, package, "--place", file, "--engine", "reference", "--kv", "float16")
    assert made["engine"] == "torch+reference"


def test_gpu_memory_is_kept_to_and_told(program: Program, package: Path) -> None:
    """As users see it: the answer on standard output, what moved on standard error."""
    made = program("run", package, "hi", "--max-tokens", 3, "--json", "--gpu-layers", 2, *CPU,
                   "--gpu-memory", "1KiB")  # fmt: skip
    assert made.returncode == 0
    assert json.loads(made.stdout)["placement"] == "ram:0-2,ram:head"
    (line,) = made.stderr.splitlines()
    assert line.endswith("moved off the GPU: blocks 0-1 to ram")


def test_bench_eval_and_chat(command: Command, package: Path, tmp_path: Path) -> None:
    place = ("--place", "gpu:0-1,ram:2", *CPU)
    sizes = ("--prompt-tokens", 4, "--new-tokens", 2, "--rounds", 1)
    made = command("bench", package, *place, *sizes, "--json")
    assert json.loads(made.stdout)["placement"] == "gpu:0-1,ram:2,ram:head"
    assert "gpu:0-1,ram:2,ram:head" in command("bench", package, *place, *sizes).stdout
    (tmp_path / "text").write_text("some text")
    made = command("eval", package, "--text", tmp_path / "text", *place, "--json")
    figures, alone = (
        json.loads(shown.stdout)
        for shown in (made, command("eval", package, "--text", tmp_path / "text", "--json"))
    )
    assert figures["placement"] == "gpu:0-1,ram:2,ram:head"
    assert alone["placement"] is None
    assert figures["perplexity"] == pytest.approx(alone["perplexity"], rel=0.01)
    chats = [command("chat", package, *more, "--max-tokens", 5, input="hello\n") for more in ((), place)]
    assert chats[0].exit_code == 0
    assert chats[0].stdout == chats[1].stdout != ""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """Stands for the planner on a machine with a GPU (the tests of `pocketglm plan` run the real one)."""
    asked: list[Limits] = []

    def plan_package(package: Package, limits: Limits, *, threads: int | None) -> Any:
        asked.append(limits)
        return SimpleNamespace(placement=Placement.parse("gpu:0,ram:1,disk:2", gpu_backend="cpu"))

    monkeypatch.setattr(measure, "plan_package", plan_package)
    return asked


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        (("--gpu-memory", "1GiB"), Limits(gpu_memory=1 << 30)),
        (("--gpu-memory", "1GiB", "--context", 99, "--kv", "int8"), Limits(None, 1 << 30, None, 99, "int8")),
        (("--gpu-layers", 1, "--memory", "2GiB"), Limits(2 << 30, None, 1)),
    ],
)
def test_what_depends_on_memory_is_planned(
    command: Command, package: Path, planned: list[Limits], options: tuple[object, ...], limits: Limits
) -> None:
    result = command("run", package, "hello", "--max-tokens", 3, "--json", *options)
    assert planned == [limits]
    assert "placement: gpu:0,ram:1,disk:2,ram:head" in result.stderr
    assert json.loads(result.stdout)["placement"] == "gpu:0,ram:1,disk:2,ram:head"


def test_what_is_said_is_not_planned(command: Command, package: Path, planned: list[Limits]) -> None:
    answer(command, package, "--gpu-layers", 1, *CPU, "--memory", "2GiB")
    answer(command, package, "--place", "gpu:0,ram:1-2", *CPU, "--memory", "2GiB", "--gpu-memory", "1GiB")
    assert planned == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--place", "gpu:0-2", "--gpu-layers", 2), "--place and --gpu-layers both say where"),
        (("--place", "gpu:0-1"), "the placement is for 2 blocks, the model has 3"),
        (("--place", "gpu:0,lap:1-2"), "'lap:1-2' is no part of a placement"),
        (("--place", "nowhere.json"), "cannot be read as a placement"),
        (("--place", "everything"), "cannot be read as a placement"),
        (("--place", "."), "cannot be read as a placement"),
        (("--place", "gpu:0,ram:1-2", "--backend", "0-1=cpu"), "backends by block"),
    ],
)
def test_refusals(command: Command, package: Path, options: tuple[object, ...], message: str) -> None:
    result = command("run", package, "hi", *options)
    assert message in result.stderr
    assert result.exit_code == 2


def test_a_machine_without_a_gpu(command: Command, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchEngine, "find_gpu", lambda self: None)
    result = command("run", package, "hi", "--gpu-layers", 2)
    assert "engine torch finds no GPU here" in result.stderr
    assert result.exit_code == 6


def test_mnn_has_the_backends_it_was_built_with(command: Command, package: Path) -> None:
    pytest.importorskip("MNN")
    result = command("run", package, "hi", "--engine", "mnn", "--gpu-layers", 2, "--backend", "metal")
    assert "engine mnn has no backend 'metal' here" in result.stderr
    assert result.exit_code == 6


def test_hostile_files(
    command: Command, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plan.json"
    for content in (b"", b"[]", b"\xff\xfe", b'{"format": "pocketglm-placement-9"}', b"[" * 100_000):
        file.write_bytes(content)
        result = command("run", package, "hi", "--place", file)
        assert result.exit_code == 2
        assert "unexpected" not in result.stderr
    monkeypatch.setattr(placing, "MOST_BYTES", 10)
    file.write_bytes(b" " * 11)
    assert "larger than any placement" in command("run", package, "hi", "--place", file).stderr
