"""The attention mask of a block graph: which columns of a cache, and of the new rows, each row sees."""

from __future__ import annotations

import numpy as np

from pocketglm.engine.contract import Float32
from pocketglm.engine.mnn.interface import HIDDEN
from pocketglm.engine.reference.attention import Visibility


def attention_mask(visibility: Visibility, rows: int, capacity: int) -> Float32:
    """[1, 1, rows, capacity + rows] for the rows from `visibility.start` on.

    The cache holds columns 0 to start - 1 and has room for `capacity`; the rows' own columns follow.
    """
    start = visibility.start
    hidden = visibility.hidden(start, start + rows, 0, start + rows)
    mask = np.full((rows, capacity + rows), HIDDEN, np.float32)
    mask[:, :start][~hidden[:, :start]] = 0
    mask[:, capacity:][~hidden[:, start:]] = 0
    return mask[None, None]
