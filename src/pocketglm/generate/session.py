"""A session: one sequence of tokens and its KV cache, over all stages of a model.

Enters: token ids, call after call. Leaves: logits. A failed or interrupted call leaves the session
as it was before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch, KVState, Segment, embed
from pocketglm.engine.positions import PositionTracker
from pocketglm.errors import ContextError, InputError
from pocketglm.generate.session_file import SavedSession, read_session, write_session
from pocketglm.plan.python_memory import CHUNK_ROWS as CHUNK_ROWS

if TYPE_CHECKING:
    from pocketglm.generate.model import Model

Float32 = NDArray[np.float32]


class Session:
    """Made by `Model.session()`. Close it, or use it as a context manager, to free its cache."""

    def __init__(self, model: Model, sequence: int) -> None:
        self.model = model
        self._sequence = sequence
        self._tokens: list[int] = []
        self._tracker = PositionTracker(model.spec)
        self._open = True
        model.open_sequence(sequence)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self._tokens)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens in the cache."""
        return tuple(self._tokens)

    def forward(self, token_ids: Sequence[int], last_only: bool = False) -> Float32:
        """Append tokens. Returns their logits, float32 [n, vocab], or [1, vocab] with `last_only`.

        A ChatGLM-6B model takes its context from the place of `<sop>` in the first call. Raises
        `InputError` where the tokens do not fit into the context or an id is no token.
        """
        hidden = self.hidden(token_ids, last_only)
        return self.model.logits(hidden[-1:] if last_only else hidden)

    def hidden(self, token_ids: Sequence[int], last_only: bool = False) -> Float32:
        """Append tokens. Returns the last block's output, float32 [n, hidden], before the head.

        With `last_only` that of the last piece of a long text, which spares the memory of the others.
        """
        self._need_open()
        ids = [int(token) for token in token_ids]
        self.check_fits(self.length + len(ids))
        start = self.length
        rows: list[Float32] = []
        try:
            for piece in self.chunks(ids):
                if last_only:
                    rows.clear()
                rows.append(self._advance(piece))
        except BaseException:  # an interrupt too: the cache must not hold half a call
            self.roll_back(start)
            raise
        if not rows:
            raise InputError("no tokens to run", hint="pass at least one token id")
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def chunks(self, token_ids: Sequence[int]) -> Iterator[list[int]]:
        """`token_ids` in pieces that may be computed one after the other from here.

        A bidirectional context goes in one piece, however long it is.
        """
        ids, start = list(token_ids), 0
        first = self._first_chunk(ids)
        while start < len(ids):
            size = first if start == 0 else CHUNK_ROWS
            yield ids[start : start + size]
            start += size

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on. ChatGLM-6B's context can only be forgotten as a whole."""
        self._need_open()
        with self.model.lock:
            self._tracker.truncate(length)
            self.model.truncate(self._sequence, length)
            del self._tokens[length:]

    def reuse(self, token_ids: Sequence[int]) -> int:
        """Keep what the cache shares with `token_ids` and forget the rest. Returns how many are kept.

        At least the last of `token_ids` is left to be computed, since its logits are wanted. Where a
        bidirectional context differs in any token, nothing of it can be kept.
        """
        with self.model.lock:
            kept = self.shared(token_ids)
            if kept < self.length:
                self.truncate(kept)
            return kept

    def shared(self, token_ids: Sequence[int]) -> int:
        """How many tokens `reuse` would keep for a prompt."""
        kept = common_prefix(self._tokens, token_ids[:-1])
        if kept < self._tracker.prefix or not self._same_context(token_ids):
            return 0
        return kept

    def copy_prefix(self, source: Session, length: int) -> None:
        """Begin this empty session with the first `length` tokens of another one of the same model."""
        self._need_open()
        if self.length or source.model is not self.model:
            raise InputError("only an empty session can take a prefix, and only from one of its own model")
        with self.model.lock:
            tracker = source._tracker.copy()
            tracker.truncate(length)
            self.model.copy_prefix(source._sequence, self._sequence, length)
            self._tracker, self._tokens = tracker, source._tokens[:length]

    def check_fits(self, length: int) -> None:
        """Raises `ContextError` where a sequence of `length` tokens exceeds the model's context."""
        limit = self.model.context
        if length <= limit:
            return
        if limit < self.spec.max_context:
            raise ContextError(
                f"the text needs {length} tokens, the context was limited to {limit}",
                hint="shorten the text, or set a larger --context (with --memory, more memory)",
            )
        raise ContextError(
            f"the text needs {length} tokens, the model's context holds {limit}",
            hint="shorten the text, or start a new conversation",
        )

    def save(self, path: str | Path) -> None:
        """Write the tokens and the KV cache to a file (NumPy's .npz)."""
        self._need_open()
        state = self.model.save(self._sequence)
        fingerprint, tokens = self.model.package.fingerprint, tuple(self._tokens)
        write_session(Path(path), SavedSession(fingerprint, tokens, state.keys, state.values))

    def restore(self, path: str | Path) -> None:
        """Replace the tokens and the KV cache by those of a file that `save` wrote.

        Raises `InputError` where the file is damaged or was saved with another package.
        """
        self._need_open()
        saved = read_session(Path(path), self.spec, self.model.package.fingerprint)
        tracker = PositionTracker(self.spec)
        if saved.tokens:
            tracker.advance(saved.tokens)
        self.truncate(0)
        if saved.tokens:
            self.model.restore(self._sequence, KVState(saved.keys, saved.values))
        self._tracker, self._tokens = tracker, list(saved.tokens)

    def close(self) -> None:
        """Free the cache. Idempotent."""
        with self.model.lock:
            if self._open:
                self._open = False
                self.model.close_sequence(self._sequence)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _advance(self, ids: list[int]) -> Float32:
        """One piece through all stages."""
        with self.model.lock:
            start = self.length
            hidden = embed(self.model.package, ids)
            try:
                return self.model.forward(hidden, Batch((self.extend(ids),)))
            except BaseException:  # before another thread sees tokens that no stage has
                self.roll_back(start)
                raise

    def extend(self, ids: Sequence[int]) -> Segment:
        """Count tokens in and return their segment, for whoever calls the stages next.

        Where the stages then fail, call `roll_back` with the length from before.
        """
        self._need_open()
        start = self.length
        positions, prefix = self._tracker.advance(ids)
        self._tokens.extend(ids)
        return Segment(self._sequence, start, positions, prefix)

    def roll_back(self, length: int) -> None:
        """Make the session and all stages agree on `length` tokens again, after a failed call."""
        with self.model.lock:
            del self._tokens[length:]
            tracker = PositionTracker(self.spec)
            if length:
                tracker.advance(self._tokens)
            self._tracker = tracker
            self.model.roll_back(self._sequence, length)

    def _first_chunk(self, ids: list[int]) -> int:
        prefix = self.spec.prefix_tokens
        if prefix is None or self.length > 0 or prefix.sop not in ids:
            return CHUNK_ROWS
        return max(CHUNK_ROWS, ids.index(prefix.sop) + 1)

    def _same_context(self, token_ids: Sequence[int]) -> bool:
        """Whether a bidirectional context ends at the same place in the cache and in `token_ids`."""
        prefix = self.spec.prefix_tokens
        if prefix is None or not self._tokens:
            return True
        place = self._tracker.prefix
        return prefix.sop in token_ids and list(token_ids).index(prefix.sop) == place

    def _need_open(self) -> None:
        if not self._open:
            raise InputError("the session is closed")


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    shared = 0
    for one, other in zip(first, second):  # noqa: B905 - they may differ in length
        if one != other:
            break
        shared += 1
    return shared
