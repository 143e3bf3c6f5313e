"""`pocketglm chat`: through a pipe, and on a terminal of its own."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pocketglm
from cli.conftest import Command
from cli.terminal import Terminal
from generate.tiny_models import write_tiny
from pocketglm.cli.chat_input import read_message


def expected(package: Path, *contents: str, tokens: int = 5) -> str:
    """What the model answers to questions and answers in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    with pocketglm.load(package, "reference") as model:
        return model.chat(messages, max_new_tokens=tokens)


def test_messages_from_a_pipe_are_answered_in_turn(command: Command, package: Path) -> None:
    result = command("chat", package, "--max-tokens", 5, input="one\ntwo\n")
    first = expected(package, "one")
    second = expected(package, "one", first, "two")
    assert result.exit_code == 0
    assert result.stdout == f"{first}\n{second}\n"
    assert len(re.findall(r"\[5 tokens at [\d.]+ tokens/s; prompt: ", result.stderr)) == 2
    assert "from the cache" in result.stderr  # the second turn computed only what was new


def test_reset_forgets(command: Command, package: Path) -> None:
    result = command("chat", package, "--max-tokens", 5, input="one\n/reset\none\n")
    assert result.stdout == f"{expected(package, 'one')}\n" * 2


def test_save_and_load(command: Command, package: Path, tmp_path: Path) -> None:
    path = tmp_path / "my talk.json"
    saved = command("chat", package, "--max-tokens", 5, input=f"one\n/save {path}\n/quit\nnever read\n")
    first = expected(package, "one")
    assert saved.stdout == f"{first}\n"
    assert [turn["content"] for turn in json.loads(path.read_text())["turns"]] == ["one", first]
    second = f"{expected(package, 'one', first, 'two')}\n"
    assert command("chat", package, "--max-tokens", 5, input=f"/load {path}\ntwo\n").stdout == second
    assert command("chat", package, "--max-tokens", 5, "--load", path, input="two\n").stdout == second


def test_system_prompts(command: Command, package: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    command("chat", package, "--max-tokens", 1, input=f"/system be brief\nhi\n/save {path}\n")
    assert json.loads(path.read_text())["system"] == "be brief"
    command("chat", package, "--max-tokens", 1, "--system", "x", input=f"/system\nhi\n/save {path}\n")
    assert json.loads(path.read_text())["system"] is None


def test_stats_and_help(command: Command, package: Path) -> None:
    result = command("chat", package, "--max-tokens", 5, input="/stats\none\n/stats\n/help\n")
    assert re.search(r"context +0 of 1200 tokens", result.stderr)
    assert re.search(r"generated tokens +5", result.stderr)
    assert re.search(r"decode tps +[\d.]+", result.stderr)
    assert all(name in result.stderr for name in ("/reset", "/save FILE", "/load FILE", "/system", "/quit"))


def test_errors_end_no_chat(command: Command, package: Path) -> None:
    lines = ["/nonsense", "/save", "/load absent.json", "x" * 1300, "one"]
    result = command("chat", package, "--max-tokens", 5, input="\n".join(lines) + "\n")
    assert result.exit_code == 0
    assert result.stdout == f"{expected(package, 'one')}\n"
    for text in ("unknown command /nonsense", "/save needs", "absent.json", "are left for it"):
        assert text in result.stderr


def test_a_message_that_begins_with_a_slash_or_is_empty(command: Command, package: Path) -> None:
    result = command("chat", package, "--max-tokens", 5, input="\n   \n /etc\n")
    assert result.stdout == f"{expected(package, '/etc')}\n"


def test_messages_of_several_lines(command: Command, package: Path) -> None:
    text = 'one\\\ntwo\n/reset\n"""three\nfour\n\n five"""\n'
    result = command("chat", package, "--max-tokens", 5, input=text)
    answers = expected(package, "one\ntwo"), expected(package, "three\nfour\n\n five")
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["plain  "], "plain"),
        (["a\\", "b\\", "c"], "a\nb\nc"),
        (['"""one line"""'], "one line"),
        (['"""', "x", '"""'], "x"),
        (['"""cut', "off"], "cut\noff"),
    ],
)
def test_reading_messages(typed: list[str], message: str) -> None:
    lines = iter(typed)

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    assert read_message(read) == message


def test_the_oldest_turns_go_when_asked(command: Command, package: Path) -> None:
    messages = "".join(f"{letter * 500}\n" for letter in "abc")
    refused = command("chat", package, "--max-tokens", 5, input=messages)
    assert refused.stdout.count("\n") >= 2
    assert "are left for it" in refused.stderr
    dropped = command("chat", package, "--max-tokens", 5, "--drop-oldest", input=messages)
    assert "are left for it" not in dropped.stderr
    assert dropped.exit_code == 0


def test_a_model_that_cannot_chat_is_refused_at_once(command: Command, tmp_path: Path) -> None:
    result = command("chat", write_tiny(tmp_path / "p", template=None), input="hi\n")
    assert result.exit_code == 4
    assert "no chat template" in result.stderr


@pytest.fixture
def terminal(package: Path) -> Iterator[Terminal]:
    if sys.platform == "win32":
        pytest.skip("needs a POSIX terminal")
    opened = Terminal("chat", package, "--engine", "reference")  # slow enough to be interrupted
    opened.wait_for("/help lists commands")
    opened.wait_for("> ")
    yield opened
    opened.close()


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Terminal) -> None:
    terminal.type("hello\r")
    terminal.wait_for("hello")
    time.sleep(0.3)  # the answer goes on for 1200 tokens
    terminal.type("\x03")
    line = terminal.wait_for("stopped")
    assert "tokens/s" in line
    terminal.wait_for("> ")
    terminal.type("/stats\r")
    terminal.wait_for("generated tokens")
    terminal.wait_for("> ")
    terminal.type("\x03")  # at the prompt: a hint, nothing else
    terminal.wait_for("(/quit or Ctrl-D to end)")
    terminal.wait_for("> ")
    terminal.type("/quit\r")
    assert terminal.process.wait(60) == 0


def test_ctrl_d_ends(terminal: Terminal) -> None:
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0


def test_a_terminal_gets_no_control_characters(terminal: Terminal) -> None:
    terminal.type("hello\r")
    terminal.wait_for("hello")
    time.sleep(0.3)
    terminal.type("\x03")
    shown = terminal.wait_for("stopped").replace("^C", "")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", shown)
