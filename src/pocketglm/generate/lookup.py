"""Prompt lookup: guess the next tokens from what the text has said before, and check several at once.

Enters: a session, and tokens as they are chosen. Leaves: the logits after each of them. Where the last
few tokens occur earlier in the prompt or the answer, what followed there is the draft: the session
computes it in the same pass as the token itself, which costs little more than the token alone, because
the weights are read once for all rows. The caller chooses every token from its own row of logits, as
without drafts, so its tokens are the same whatever is drafted; a draft it does not choose is cut off
the cache again. (Saxena, "Prompt Lookup Decoding", 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pocketglm.generate.session import Session

Float32 = NDArray[np.float32]

LONGEST_MATCH, SHORTEST_MATCH = 3, 2
"""Tokens that must agree with an earlier place. One alone (a comma, a space) says too little."""

FIRST_DRAFT = 3
"""Tokens of a first draft: the pass has four rows then, which the matrix kernels compute in nearly the
time of one (`bench/lookup.py` prints the times)."""

LONGEST_PAUSE = 32
"""Tokens without a draft after many drafts in a row that were refused from their first token."""


class NgramIndex:
    """Where every short run of tokens occurred last."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Take a token in. The run that ends before it has a continuation from now on."""
        end = len(self._tokens)
        for size in range(SHORTEST_MATCH, min(LONGEST_MATCH, end) + 1):
            self._places[tuple(self._tokens[end - size : end])] = end
        self._tokens.append(token)

    def continuation(self, most: int) -> list[int]:
        """Up to `most` tokens that followed the last run at its latest earlier place, longest runs first.

        A place close to the end is read on into the draft itself: a text that repeats goes on repeating.
        """
        for size in range(min(LONGEST_MATCH, len(self._tokens)), SHORTEST_MATCH - 1, -1):
            place = self._places.get(tuple(self._tokens[-size:]))
            if place is not None:
                return self._read(place, most)
        return []

    def _read(self, place: int, most: int) -> list[int]:
        period = self._tokens[place:]
        return [period[i % len(period)] for i in range(most)]


class DraftLength:
    """How long the next draft is: longer as drafts come true, none for a while where they fail.

    It follows from the tokens alone, never from the clock, so that an answer can be repeated.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._length = min(FIRST_DRAFT, most)
        self._refused = 0
        self._pause = 0

    def next(self) -> int:
        """Tokens to draft now; counts a pause down."""
        if self._pause:
            self._pause -= 1
            return 0
        return self._length

    def judge(self, drafted: int, accepted: int) -> None:
        """Learn from a draft."""
        if accepted == drafted:
            self._length = min(self._most, 2 * self._length + 1)  # with the token itself: 4, 8, 16 rows
        else:
            self._length = min(self._most, max(FIRST_DRAFT, accepted))
        self._refused = 0 if accepted else self._refused + 1
        self._pause = 0 if accepted else min(LONGEST_PAUSE, 2**self._refused - 1)


class LookupDecoder:
    """Logits after every next token of an answer, with drafts of at most `most` tokens; 0 for none."""

    def __init__(self, session: Session, prompt: Sequence[int], most: int) -> None:
        self.drafted = 0
        self.accepted = 0
        self._session = session
        self._index = NgramIndex(prompt if most else ())
        self._length = DraftLength(most)
        self._most = most
        self._draft: list[int] = []
        self._rows: list[Float32] = []  # the logits [vocab] after each token of the draft
        self._used = 0

    def logits(self, token: int, room: int) -> Float32:
        """Logits [vocab] after `token`, which is appended to the session.

        `room` is how many tokens may still follow it: no more are drafted.
        """
        if self._most:
            self._index.append(token)
        if self._used < len(self._draft) and self._draft[self._used] == token:
            self._used += 1
            return self._rows[self._used - 1]
        self.settle()
        size = min(self._length.next(), room) if self._most else 0
        draft = self._index.continuation(size) if size else []
        first: Float32
        first, *rest = self._session.forward([token, *draft])
        self._draft, self._rows, self._used = draft, rest, 0
        return first

    def settle(self) -> None:
        """Cut off the session what was drafted and not chosen, and learn from it. Idempotent."""
        drafted, accepted = len(self._draft), self._used
        self._draft, self._rows, self._used = [], [], 0
        if not drafted:
            return
        self.drafted += drafted
        self.accepted += accepted
        self._length.judge(drafted, accepted)
        if accepted < drafted and self._session.is_open:
            self._session.truncate(self._session.length - (drafted - accepted))
