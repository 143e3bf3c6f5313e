"""Finds tool calls in an answer while it streams.

Enters: pieces of text. Leaves: the text that is certainly no call, and at the end the calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from pocketglm.serve.tool_calls import Tool, ToolCall, ToolFormat


class ToolWatch:
    """Holds text back while it may be a call."""

    def __init__(self, form: ToolFormat, tools: Sequence[Tool], parallel: bool) -> None:
        self._form = form
        self._tools = tools
        self._parallel = parallel
        self._text = ""
        self._shown = 0

    def feed(self, text: str) -> str:
        """The text that may be shown now."""
        self._text += text
        return self._new(self._form.read(self._text, self._tools, ended=False)[0])

    def finish(self) -> tuple[str, list[ToolCall]]:
        """The rest of the text, and the calls."""
        text, calls = self._form.read(self._text, self._tools, ended=True)
        return self._new(text), calls if self._parallel else calls[:1]

    def _new(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new
