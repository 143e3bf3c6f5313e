"""Several sequences in one pass: one token each.

Enters: sessions of one model and the next token of each. Leaves: the logits of all. Weights are read
once for the whole batch, which is what makes it faster than one sequence after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.contract import Batch, embed
from pocketglm.errors import InputError
from pocketglm.generate.session import Session

Float32 = NDArray[np.float32]


def decode_together(sessions: Sequence[Session], tokens: Sequence[int]) -> Float32:
    """Append token i to session i. Returns logits, float32 [sessions, vocab].

    The sessions must belong to one model. A failed call leaves all of them as they were.
    """
    if not sessions or len(sessions) != len(tokens):
        raise InputError(f"{len(sessions)} sessions got {len(tokens)} tokens, expected one each")
    model = sessions[0].model
    if any(session.model is not model for session in sessions):
        raise InputError("the sessions belong to different models")
    starts = [session.length for session in sessions]
    for session in sessions:
        session.check_fits(session.length + 1)
    with model.lock:
        try:
            segments = [session.extend([token]) for session, token in zip(sessions, tokens, strict=True)]
            hidden = model.forward(embed(model.package, tokens), Batch(tuple(segments)))
            return model.logits(hidden)
        except BaseException:
            for session, start in zip(sessions, starts, strict=True):
                session.roll_back(start)
            raise
