"""Attention of one forward pass through the kernels; `plain_pass.py` is the same in plain PyTorch.

Enters: the segments of a pass and their caches. Leaves: attended values; keys and values are in the caches.
All that differs between two passes of the same rows is in tensors on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pocketglm.engine.contract import Batch
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.kernels.attention import attention, splits, tile_rows
from pocketglm.engine.torch.kernels.rotary import SEGMENT_FIELDS, rotate_write
from pocketglm.engine.torch.plain_pass import rotation_of
from pocketglm.engine.torch.weights import DeviceWeights


@dataclass(frozen=True)
class PagedPass:
    """Rotation and segments of a pass as `rotate_write` takes them, tiles as `attention` does."""

    layout: CacheLayout
    rotation: Tensor
    segments: Tensor
    row_segments: Tensor
    tiles: Tensor
    rows_at_once: int
    parts: int

    @classmethod
    def of(cls, layout: CacheLayout, batch: Batch, caches: Mapping[int, SequenceCache]) -> PagedPass:
        counts = [segment.count for segment in batch.segments]
        rows_at_once = tile_rows(layout, max(counts))
        pages = max(len(caches[segment.sequence].pages) for segment in batch.segments)
        tiles = [(i, row) for i, count in enumerate(counts) for row in range(0, count, rows_at_once)]
        rotation, segments, row_segments, tile_table = (
            torch.from_numpy(array).to(layout.device)
            for array in (
                rotation_of(layout.spec, batch),
                segment_table(batch, caches, pages),
                np.repeat(np.arange(len(counts), dtype=np.int32), counts),
                np.array(tiles, dtype=np.int32),
            )
        )
        parts = splits(layout, len(tiles), pages)
        return cls(layout, rotation, segments, row_segments, tile_table, rows_at_once, parts)

    def attend(self, qkv: Tensor, weights: DeviceWeights, index: int, window: int | None) -> Tensor:
        """Attended values [rows, heads * head_dim] of qkv [rows, q + 2 kv] in the stage's block `index`."""
        q_norm, k_norm = (weights.norms.get(f"attention.{name}") for name in ("q_norm", "k_norm"))
        queries = rotate_write(
            self.layout, index, qkv, self.rotation, self.segments, self.row_segments, q_norm, k_norm
        )
        return attention(
            self.layout, index, window, queries, self.segments, self.tiles, self.parts, self.rows_at_once
        )


def segment_table(batch: Batch, caches: Mapping[int, SequenceCache], pages: int) -> NDArray[np.int64]:
    """int64 [segments, SEGMENT_FIELDS + pages]: first row of the pass, start, rows, prefix, and then the
    addresses of the sequence's pages, 0 where it has none."""
    table = np.zeros((len(batch.segments), SEGMENT_FIELDS + pages), dtype=np.int64)
    row = 0
    for line, segment in zip(table, batch.segments, strict=True):
        addresses = [page.buffer.data_ptr() for page in caches[segment.sequence].pages[:pages]]
        line[:SEGMENT_FIELDS] = row, segment.start, segment.count, segment.prefix
        line[SEGMENT_FIELDS : SEGMENT_FIELDS + len(addresses)] = addresses
        row += segment.count
    return table
