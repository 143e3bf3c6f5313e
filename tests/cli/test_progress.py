"""Progress: a bar with the time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.terminal import Terminal
from pocketglm.cli.progress import progress_bar


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_a_terminal_shows_a_bar_with_the_time_left(golden: Path, tmp_path: Path) -> None:
    terminal = Terminal("convert", golden / "chatglm2-tiny", "-o", tmp_path / "p", TERM="xterm")
    try:
        shown = terminal.read_to_end()
    finally:
        terminal.close()
    assert terminal.process.returncode == 0, shown
    assert "converting" in shown
    assert "0:00:0" in shown
    assert "%" in shown


def test_elsewhere_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working") as update:
        update("step", 1, 2)
    assert capsys.readouterr() == ("", "")
