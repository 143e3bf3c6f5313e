"""Taking over weights that the checkpoint holds quantized in a package's own way.

Enters: a canonical tensor's rows and the format they are to have. Leaves: the checkpoint's codes and
scales, or None where it has none of this format.
"""

from __future__ import annotations

import numpy as np

from pocketglm.architecture.table import TensorRule
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.checkpoint.stored_codes import CodeFormat, QuantizedCheckpoint
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import QuantizedRows


def stored_rows(
    checkpoint: Checkpoint, rule: TensorRule, start: int, count: int, weight_format: WeightFormat
) -> QuantizedRows | None:
    """Rows start..start+count of `rule` as the checkpoint stores them, if that is `weight_format`."""
    if not isinstance(checkpoint, QuantizedCheckpoint):
        return None
    columns = rule.shape[1]
    wanted = CodeFormat(
        weight_format.bits,
        weight_format.stored_inputs(columns),
        weight_format.groups(columns),
        weight_format.symmetric,
    )
    pieces = tuple(rule.rows(start, count))
    if any(checkpoint.code_format(piece.source) != wanted for piece in pieces):
        return None
    stored = [checkpoint.read_codes(piece.source, piece.start, piece.count) for piece in pieces]
    return QuantizedRows(
        np.concatenate([rows.codes for rows in stored]), np.concatenate([rows.alpha for rows in stored])
    )
