"""Rows of several sequences in one pass: single tokens beside pieces of prompts.

Enters: sessions of one model and the next tokens of each. Leaves: hidden states before the head.
`generate/batch.py` is the case of one token each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pocketglm.engine.contract import Batch, Float32, embed
from pocketglm.generate.model import Model
from pocketglm.generate.session import Session


@dataclass(frozen=True)
class Part:
    """Tokens to append to a session."""

    session: Session
    token_ids: Sequence[int]


def forward_together(model: Model, parts: Sequence[Part], starting: Callable[[], None]) -> Float32:
    """Append every part to its session. Returns the last block's output, float32 [rows, hidden].

    Rows stand in the order of the parts. `starting` is called just before the stages compute. A failed
    call leaves all sessions as they were.
    """
    starts = [part.session.length for part in parts]
    for part in parts:
        part.session.check_fits(part.session.length + len(part.token_ids))
    with model.lock:
        try:
            segments = tuple(part.session.extend(part.token_ids) for part in parts)
            hidden = embed(model.package, [token for part in parts for token in part.token_ids])
            starting()
            return model.forward(hidden, Batch(segments))
        except BaseException:
            for part, start in zip(parts, starts, strict=True):
                part.session.roll_back(start)
            raise
