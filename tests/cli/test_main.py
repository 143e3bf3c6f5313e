"""The command as a whole: help, version, errors, exit codes, pipes and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pocketglm
from cli.conftest import Command, Program
from pocketglm import errors
from pocketglm.cli.main import _exit_code

COMMANDS = ("convert", "inspect", "verify", "run", "chat", "eval", "bench", "export", "demo")


def test_version(command: Command) -> None:
    assert command("--version").stdout == f"pocketglm {pocketglm.__version__}\n"


def test_help_lists_every_command_and_the_exit_codes(command: Command) -> None:
    text = command("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "130 stopped by Ctrl-C" in " ".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    result = command(name, "-h")
    assert result.exit_code == 0
    assert f"Usage: pocketglm {name}" in result.stdout


def test_help_is_fast_because_it_imports_little() -> None:
    program = (
        "import sys, time\n"
        "sys.argv = ['pocketglm', 'run', '--help']\n"
        "from pocketglm.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'gguf', 'transformers', 'numpy', 'rich', 'jinja2', 'tokenizers')\n"
        "print([m for m in sys.modules if m in heavy], time.process_time(), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules, _, seconds = answer.stderr.rpartition(" ")
    assert modules == "[]"
    assert float(seconds) < 1.0  # about 0.15 on a quiet machine


def test_it_runs_as_a_module() -> None:
    line = [sys.executable, "-m", "pocketglm", "--version"]
    answer = subprocess.run(line, capture_output=True, text=True, check=True)
    assert answer.stdout == f"pocketglm {pocketglm.__version__}\n"


def test_without_arguments_it_shows_help(command: Command) -> None:
    assert "Usage: pocketglm" in command().output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PocketGLMError("x"), 1),
        (errors.InputError("x"), 2),
        (errors.CheckpointError("x"), 3),
        (errors.UnsafePickleError("x"), 3),
        (errors.PackageError("x"), 4),
        (errors.IntegrityError("x"), 4),
        (errors.ResourceError("x"), 5),
        (errors.EngineError("x"), 6),
        (errors.MissingExtraError("x"), 7),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


def test_an_error_is_one_line_and_a_hint(command: Command, tmp_path: Path) -> None:
    result = command("run", tmp_path, "hi")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}: no package here (manifest.json not found)",
        "hint: name a directory made by `pocketglm convert`",
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(program: Program, tmp_path: Path, place: int) -> None:
    arguments: list[object] = ["inspect", tmp_path]
    arguments.insert(place, "--debug")
    result = program(*arguments)
    assert "Traceback" in result.stderr
    assert "PackageError" in result.stderr


def test_debug_after_two_dashes_is_text(command: Command, package: Path) -> None:
    result = command("run", package, "--json", "--max-tokens", 1, "--", "--debug")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["prompt_tokens"] == len("--debug") + 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["nonsense"],
        ["run", "DIR", "x", "--temperature", "hot"],
        ["run", "DIR", "x", "--memory", "2 pounds"],
        ["run", "DIR", "x", "--memory", "10"],
        ["run", "DIR", "x", "--threads", "0"],
        ["convert", "DIR"],
        ["eval", "DIR"],
        ["demo", "gpt"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(command: Command, arguments: list[str]) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error" in result.stderr


def test_colours_only_where_they_are_wanted(program: Program, tmp_path: Path) -> None:
    assert "\x1b" not in program("inspect", tmp_path).stderr  # a pipe


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_reader_that_leaves_is_no_error(package: Path) -> None:
    line = [sys.executable, "-m", "pocketglm", "run", str(package), "x"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert error == b""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_is_exit_code_130(package: Path) -> None:
    line = [sys.executable, "-m", "pocketglm", "run", str(package), "x"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert err == b"stopped\n"


def test_output_is_utf8_in_any_locale(
    package: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
    result = program("run", package, "你好", "--max-tokens", 3)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(package: Path) -> None:
    line = [sys.executable, "-m", "pocketglm", "inspect", str(package)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "No space left" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_installed_command_is_there() -> None:
    began = time.perf_counter()
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="pocketglm")
    assert entry.value == "pocketglm.cli.main:main"
    assert time.perf_counter() - began < 10
