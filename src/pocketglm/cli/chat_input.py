"""What the user types: lines, and texts of several lines.

A line that ends in a backslash goes on in the next one. A text between two `\"\"\"` may have any number
of lines. On a terminal the line can be edited and earlier lines recalled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

PROMPT, CONTINUED = "> ", "… "
QUOTES = '"""'

ReadLine = Callable[[str], str]
"""Shows a prompt and returns one line without its line break; raises `EOFError` at the end."""


def line_reader() -> ReadLine:
    """Reads standard input: with editing on a terminal, plainly from a pipe."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(ImportError):  # Windows has none: its console edits lines itself
            import readline  # noqa: F401 - `input` uses it once it is imported
        return input
    return _plain_line


def read_message(read_line: ReadLine) -> str:
    """The next message, which may have several lines. Raises `EOFError` at the end of the input."""
    line = read_line(PROMPT)
    if line.lstrip().startswith(QUOTES):
        return _quoted(line.lstrip()[len(QUOTES) :], read_line)
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = read_line(CONTINUED)
    return "\n".join([*lines, line]).rstrip()


def _quoted(first: str, read_line: ReadLine) -> str:
    """The text up to the closing quotes, or to the end of the input."""
    lines = [first]
    while not lines[-1].rstrip().endswith(QUOTES):
        try:
            lines.append(read_line(CONTINUED))
        except EOFError:
            return "\n".join(lines).strip()
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip()


def _plain_line(prompt: str) -> str:
    if sys.stdin.isatty():
        sys.stderr.write(prompt)
        sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")
