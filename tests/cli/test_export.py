from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import Command, Program
from engine.mnn.graphs import need_mnn


@pytest.fixture
def copied(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "package"))


def test_mnn_graphs_in_place_and_run(copied: Path, program: Program) -> None:
    need_mnn()
    made = program("export", copied, "--format", "mnn")
    assert (made.returncode, made.stdout, made.stderr) == (0, f"{copied}\n", "")
    assert (copied / "block_00.mnn").is_file()
    bench = program(
        "bench", copied, "--engine", "mnn", "--prompt-tokens", 8, "--new-tokens", 2, "--rounds", 1, "--json"
    )
    assert json.loads(bench.stdout)["engine"] == "mnn"


def test_engine_without_graphs_gives_the_command(copied: Path, command: Command) -> None:
    need_mnn()
    result = command("bench", copied, "--engine", "mnn")
    assert result.exit_code == 6
    assert "no MNN graphs" in result.stderr
    assert f"pocketglm export {copied} --format mnn" in result.stderr


def test_output_directory(copied: Path, command: Command, tmp_path: Path) -> None:
    need_mnn()
    result = command("export", copied, "--format", "mnn", "-o", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == {"format": "mnn", "path": str(tmp_path / "out")}
    assert not (copied / "head.mnn").exists()


def test_zip(copied: Path, command: Command, tmp_path: Path) -> None:
    result = command("export", copied, "--format", "zip", "-o", tmp_path / "out.zip", "--json")
    assert json.loads(result.stdout)["bytes"] == (tmp_path / "out.zip").stat().st_size


@pytest.mark.parametrize("name", ["zip", "mnn-llm"])
def test_formats_that_need_an_output_say_so(copied: Path, command: Command, name: str) -> None:
    result = command("export", copied, "--format", name)
    assert result.exit_code == 2
    assert "needs -o" in result.stderr


def test_unknown_format_lists_what_there_is(copied: Path, command: Command) -> None:
    result = command("export", copied, "--format", "tape")
    assert result.exit_code == 2
    assert "mnn, mnn-llm, zip" in result.stderr
