"""Stop strings in streamed text: nothing of a stop string is ever emitted.

Enters: pieces of text. Leaves: the text that can be no part of a stop string, as early as possible.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Holds back the end of the text while a stop string may still come of it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Text that may be shown now. After a match, `matched` is set and nothing more comes."""
        if not self._stops:
            return text
        if self.matched is not None:
            return ""
        self._held += text
        found = [(self._held.find(stop), -len(stop), stop) for stop in self._stops if stop in self._held]
        if found:
            place, _, self.matched = min(found)
            shown, self._held = self._held[:place], ""
            return shown
        keep = max((overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """The text held back, at the end of the answer."""
        shown, self._held = self._held, ""
        return shown


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
