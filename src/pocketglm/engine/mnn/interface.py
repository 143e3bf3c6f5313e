"""What a block graph takes and gives: the agreement between `export --format mnn` and the engine.

Block graphs (float32 unless said otherwise; `rows` and `history` are dynamic):

    hidden   [rows, 1, hidden]
    mask     [1, 1, rows, history + rows]    added to the scores: 0 visible, `HIDDEN` not
    rotation [2, axes, rows, pairs]          cosines, then sines, of each row's angles
    past     [2, kv_heads, history, head_dim]    keys, then values; keys are rotated
    ->
    output   [rows, 1, hidden]
    present  [2, kv_heads, rows, head_dim]   keys and values of the new rows only

The history may hold columns that no row may see (the mask hides them), so a cache can be larger than
what it holds. Heads come first in `past`: each head's keys are then one matrix, which MNN multiplies
without a transposition (20 ms against 37 ms a block at 2048 columns of ChatGLM-6B).

The head's graph: hidden [rows, 1, hidden] -> logits [rows, 1, vocab].
"""

from __future__ import annotations

BLOCK_INPUTS = ("hidden", "mask", "rotation", "past")
BLOCK_OUTPUTS = ("output", "present")
HEAD_INPUTS = ("hidden",)
HEAD_OUTPUTS = ("logits",)

HIDDEN = -1e9
"""Mask of a column that a row must not see: far below any score, and the softmax of it is exactly 0."""

INTERFACE = 1
"""Raised whenever inputs or outputs change: the engine refuses graphs made for another one."""

GRAPHS = "mnn"
"""Name of the graphs in the manifest's `graphs`."""

EXPORT_HINT = "make the graphs with `pocketglm export {} --format mnn`"


def graph_file(weight_file: str) -> str:
    """`block_07.mnn` of `block_07.mnn.weight`: MNN looks for the weights under the graph's name."""
    return weight_file.removesuffix(".weight")
