"""Which positions the next rows of a sequence have, and which of its columns every row may see.

Enters: a sequence's token ids, call after call. Leaves: the `positions` and `prefix` of the
`Segment` that goes to the stages. Sessions keep one tracker for each sequence, whatever the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketglm.architecture.spec import ModelSpec, PrefixTokens
from pocketglm.engine.contract import Int32
from pocketglm.errors import InputError


class PositionTracker:
    """Positions of one sequence.

    `sequential`: 0, 1, 2, ...; no prefix. `glm_2d` (ChatGLM-6B): the first call holds the prompt, and
    the context is what stands before its `<sop>`. Context token i has the positions (i, 0); the others
    have (index of [gMASK], or of [MASK] where there is no [gMASK]; 1, 2, 3, ...). All rows see the
    whole context, so it cannot be computed in pieces, and it cannot be cut.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.length = 0
        self._tokens = spec.prefix_tokens
        self._axes = spec.position_axes
        self._context = 0
        self._mask_index = 0

    @property
    def prefix(self) -> int:
        """Columns that every row sees; 0 for causal models."""
        return self._context

    def advance(self, token_ids: Sequence[int]) -> tuple[Int32, int]:
        """Count `token_ids` in. Returns their positions, int32 [axes, count], and the prefix."""
        if len(token_ids) == 0:
            raise InputError("no tokens to run", hint="pass at least one token id")
        if self._tokens is not None and self.length == 0:
            self._context, self._mask_index = _find_context(self._tokens, token_ids)
        index = np.arange(self.length, self.length + len(token_ids), dtype=np.int32)
        self.length += len(token_ids)
        if self._tokens is None:
            positions = np.empty((self._axes, len(index)), np.int32)
            positions[:] = index
            return positions, 0
        first = np.where(index < self._context, index, np.int32(self._mask_index))
        second = np.maximum(index - np.int32(self._context - 1), 0)
        return np.stack([first, second]).astype(np.int32), self._context

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on. A bidirectional context goes as a whole or not at all."""
        if not 0 <= length <= self.length:
            raise InputError(f"cannot truncate a sequence of {self.length} tokens to {length}")
        if 0 < length < self._context:
            raise InputError(
                f"cannot truncate to {length}: the first {self._context} tokens see one another, "
                "so what was computed for them is void without the rest",
                hint=f"truncate to 0 and run the prompt again, or keep at least {self._context} tokens",
            )
        self.length = length
        if length == 0:
            self._context = self._mask_index = 0

    def copy(self) -> PositionTracker:
        """An independent tracker in the same state."""
        twin = object.__new__(PositionTracker)
        twin.__dict__.update(self.__dict__)
        return twin


def _find_context(tokens: PrefixTokens, token_ids: Sequence[int]) -> tuple[int, int]:
    """Index of `<sop>` and of the mask token before it."""
    ids = [int(token) for token in token_ids]
    hint = f"end the prompt with the ids {tokens.gmask} ([gMASK]) and {tokens.sop} (<sop>), in one call"
    if tokens.sop not in ids:
        raise InputError(f"the first tokens of the sequence lack <sop> (id {tokens.sop})", hint=hint)
    context = ids.index(tokens.sop)
    for mask in (tokens.gmask, tokens.mask):
        if mask in ids[:context]:
            return context, ids.index(mask)
    raise InputError(f"no [gMASK] (id {tokens.gmask}) or [MASK] (id {tokens.mask}) before <sop>", hint=hint)
