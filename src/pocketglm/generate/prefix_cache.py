"""Finished sessions that are kept, so that a prompt which begins like an earlier one is not computed again.

Enters: prompts, and sessions that are done. Leaves: for every prompt a session that holds as much of its
beginning as any kept or used one. Safe for use from several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pocketglm.generate.session import Session
from pocketglm.plan.kv_cache import kv_bytes_per_token

if TYPE_CHECKING:
    from pocketglm.generate.model import Model

KEPT_SESSIONS = 8
KEPT_BYTES = 512 << 20
"""Of KV caches, beside the session given back last, which is kept whatever its size."""

LEAST_COPIED = 16
"""Tokens below which copying a prefix is not worth a second session."""


class PrefixCache:
    """`take(prompt)` instead of `Model.session()`, and `give_back(session)` instead of closing it.

    At most `sessions` are kept, the most recently used ones, and of those only as many as take
    `kept_bytes`. `kept_bytes` 0 keeps one: what a model under a memory limit has room for.
    """

    def __init__(self, model: Model, sessions: int = KEPT_SESSIONS, kept_bytes: int = KEPT_BYTES) -> None:
        self._model = model
        self._most = max(1, sessions)
        self._kept_bytes = kept_bytes
        self._token_bytes = kv_bytes_per_token(model.spec, model.kv)
        self._idle: list[Session] = []  # the least recently used first
        self._busy: list[Session] = []

    def take(self, token_ids: Sequence[int]) -> Session:
        """A session for a prompt: it holds the longest beginning there is, and nothing beyond it.

        A kept session is taken over where the prompt goes on with most of it; else the shared part is
        copied and the kept session stays as it is. Give it back, or close it.
        """
        with self._model.lock:
            session = self._take_over(token_ids) or self._copy(token_ids)
            self._busy.append(session)
            if not self._kept_bytes:
                self._close_idle(0)
            return session

    def give_back(self, session: Session) -> None:
        """Keep a session that `take` gave; one that is closed is forgotten."""
        with self._model.lock:
            self._busy = [other for other in self._busy if other is not session]
            if session.is_open and session.length:
                self._idle.append(session)
                self._shrink()
            else:
                session.close()

    def drop_oldest(self) -> bool:
        """Close the least recently used session that is kept. False where none is."""
        with self._model.lock:
            there = bool(self._idle)
            self._close_idle(max(0, len(self._idle) - 1))
            return there

    def close(self) -> None:
        """Close the sessions that are kept. Those in use are left to their users."""
        with self._model.lock:
            self._close_idle(0)

    @property
    def kept(self) -> tuple[Session, ...]:
        """The sessions that wait, the most recently used last."""
        return tuple(self._idle)

    def _take_over(self, token_ids: Sequence[int]) -> Session | None:
        best = max(self._idle, key=lambda session: session.shared(token_ids), default=None)
        if best is None:
            return None
        shared = best.shared(token_ids)
        # Another prompt may still want what would be cut off; under a memory limit nothing else is kept
        worth_copying = LEAST_COPIED <= shared < best.length // 2 and self._kept_bytes > 0
        if worth_copying or (shared < LEAST_COPIED and self._kept_bytes > 0 and best.length > shared):
            return None
        self._idle.remove(best)
        best.reuse(token_ids)
        return best

    def _copy(self, token_ids: Sequence[int]) -> Session:
        session = self._model.session()
        others = [other for other in (*self._idle, *self._busy) if other.is_open]
        best = max(others, key=lambda other: other.shared(token_ids), default=None)
        if best is not None and self._kept_bytes and best.shared(token_ids) >= LEAST_COPIED:
            try:
                session.copy_prefix(best, best.shared(token_ids))
            except BaseException:
                session.close()
                raise
        return session

    def _shrink(self) -> None:
        while len(self._idle) > 1 and (
            len(self._idle) > self._most or self._others_bytes() > self._kept_bytes
        ):
            self._close_idle(len(self._idle) - 1)

    def _others_bytes(self) -> int:
        return sum(session.length for session in self._idle[:-1]) * self._token_bytes

    def _close_idle(self, left: int) -> None:
        while len(self._idle) > left:
            self._idle.pop(0).close()
