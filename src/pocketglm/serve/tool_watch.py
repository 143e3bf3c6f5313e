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
        self._held = ""
        self._watching = True

    def feed(self, text: str) -> str:
        """The text that may be shown now."""
        self._held += text
        if self._watching and self._form.may_begin(self._held, self._tools):
            return ""
        # A form without a mark is a whole answer: once it is none, it stays none
        self._watching = self._watching and bool(self._form.before)
        shown, self._held = self._held, ""
        return shown

    def finish(self) -> tuple[str, list[ToolCall]]:
        """The rest of the text, and the calls."""
        rest, calls = self._form.find(self._held, self._tools)
        return rest, calls if self._parallel else calls[:1]
