"""How many rows a step computes, so that it takes about as long as it may.

Enters: rows and seconds of the steps so far. Leaves: rows for the next. A machine that computes a prompt
quickly takes large pieces, a slow one small pieces, so that streams pause equally long on both.
"""

from __future__ import annotations

from pocketglm.serve.settings import BatchSettings

LEAST_ROWS = 16
"""Fewer rows leave the matrix kernels no better off than single tokens."""

WEIGHT_OF_LAST = 0.3


class StepSize:
    """Rows of prompts for a step; starts small, because nothing is known of the machine."""

    def __init__(self, settings: BatchSettings, most: int) -> None:
        self._settings = settings
        self._most = most
        self._rows_per_s: float | None = None

    def rows(self, decoding: bool) -> int:
        """Rows for prompts; `decoding` says whether answers stream beside them."""
        seconds = self._settings.decode_step_s if decoding else self._settings.prefill_step_s
        wanted = LEAST_ROWS if self._rows_per_s is None else int(self._rows_per_s * seconds)
        return min(self._most, max(LEAST_ROWS, wanted))

    def learn(self, rows: int, seconds: float) -> None:
        """Take in a step that was large enough to say something."""
        if rows < LEAST_ROWS or seconds <= 0:
            return
        rate = rows / seconds
        known = rate if self._rows_per_s is None else self._rows_per_s
        self._rows_per_s = known + WEIGHT_OF_LAST * (rate - known)
