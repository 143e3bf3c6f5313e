"""Where output goes: answers and reports to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from pocketglm.errors import PocketGLMError

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def answer(text: str, end: str = "\n") -> None:
    """Write to standard output and flush, so that a stream is seen as it comes.

    A terminal gets no control characters: what a model writes must not move its cursor, set its title
    or type for the user. A pipe or file gets the text as it is.
    """
    shown = _CONTROL.sub("\ufffd", text) if sys.stdout.isatty() else text
    sys.stdout.write(shown + end)
    sys.stdout.flush()


def report(data: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    answer(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False))


def note(text: str) -> None:
    """A line for the user on standard error."""
    print(text, file=sys.stderr, flush=True)


def show_error(error: PocketGLMError) -> None:
    """One line that says what is wrong, and one that says what to do."""
    note(f"{paint('error:', '1;31')} {error}")
    if error.hint:
        note(f"{paint('hint:', '1;36')} {error.hint}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns, both aligned left."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def paint(text: str, code: str) -> str:
    """`text` in colour (an ANSI code) where standard error shows colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if shows_colour(sys.stderr) else text


def shows_colour(stream: TextIO) -> bool:
    """A terminal, unless NO_COLOR is set (https://no-color.org) or the terminal is a dumb one."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def use_utf8() -> None:
    """Write UTF-8 whatever the locale says; what cannot be written is escaped, never an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def quiet_stdout() -> None:
    """After a broken pipe: nothing more can be written, not even by the interpreter at its end."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError):  # a stream without a file descriptor needs no such care
        pass
    finally:
        os.close(devnull)
