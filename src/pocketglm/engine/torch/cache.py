"""The KV cache of one sequence in one stage, on a device, in pages.

Enters: keys and values of new rows, block by block. Leaves: all keys and values of a block. A page holds
`PAGE_POSITIONS` positions of all blocks of the stage; the cache grows page by page, without a copy of
what is there. New rows count once the whole pass is committed, so a failed pass leaves the cache as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import KVState, KVType
from pocketglm.engine.torch.device import device_memory
from pocketglm.engine.torch.memory import PAGE_POSITIONS, page_bytes

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
INT8_LEVELS = 127


@dataclass(frozen=True)
class CacheLayout:
    """What one page of a stage's caches holds, and where it lies."""

    spec: ModelSpec
    blocks: int
    kv: KVType
    device: torch.device

    @property
    def page_bytes(self) -> int:
        return page_bytes(self.spec, self.blocks, self.kv)

    def new_page(self) -> Page:
        """An empty page. PyTorch's errors for short memory pass through."""
        return Page(self, torch.empty(self.page_bytes, dtype=torch.uint8, device=self.device))


class Page:
    """One buffer: codes [blocks, 2 (keys, values), kv_heads, PAGE_POSITIONS, head_dim], of the cache's
    type; then, for int8, float32 scales [blocks, 2, kv_heads, PAGE_POSITIONS]."""

    def __init__(self, layout: CacheLayout, buffer: Tensor) -> None:
        spec, kind = layout.spec, DTYPES[layout.kv]
        shape = (layout.blocks, 2, spec.num_kv_heads, PAGE_POSITIONS, spec.head_dim)
        size = int(np.prod(shape)) * kind.itemsize
        self.buffer = buffer
        self.codes = buffer[:size].view(kind).view(shape)
        self.scales = buffer[size:].view(torch.float32).view(shape[:-1]) if layout.kv == "int8" else None

    def write(self, block: int, side: int, start: int, rows: Tensor) -> None:
        """Put float rows [count, kv_heads, head_dim] at positions start.. of the page."""
        rows = rows.transpose(0, 1)
        place = slice(start, start + rows.shape[1])
        if self.scales is not None:
            scale = rows.abs().amax(dim=-1) / INT8_LEVELS
            self.scales[block, side, :, place] = scale
            # A row of zeros has scale 0 and codes 0
            rows = torch.round(rows / torch.where(scale > 0, scale, 1)[..., None])
        self.codes[block, side, :, place] = rows

    def read(self, block: int, side: int, count: int) -> Tensor:
        """The first `count` positions as float32 [kv_heads, count, head_dim]."""
        rows = self.codes[block, side, :, :count].float()
        return rows if self.scales is None else rows * self.scales[block, side, :, :count, None]


class SequenceCache:
    """Pages of one sequence; see the module."""

    def __init__(self, layout: CacheLayout) -> None:
        self.length = 0
        self.pages: list[Page] = []
        self._layout = layout

    def reserve(self, count: int) -> None:
        """Make room for `count` more positions. Raises `DeviceMemoryError`; nothing has changed then."""
        needed = -(-(self.length + count) // PAGE_POSITIONS)
        with device_memory(f"the KV cache of {self.length + count} positions"):
            self.pages += [self._layout.new_page() for _ in range(needed - len(self.pages))]

    def write(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Put rows [rows, kv_heads, head_dim] after the committed ones; room must be reserved."""
        for page, start, rows in _pieces(self.length, keys.shape[0]):
            self.pages[page].write(block, 0, start, keys[rows])
            self.pages[page].write(block, 1, start, values[rows])

    def read(self, block: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions 0..end-1, float32 [kv_heads, end, head_dim]."""
        keys, values = (
            torch.cat([self.pages[p].read(block, side, count_of(r)) for p, _, r in _pieces(0, end)], dim=1)
            for side in (0, 1)
        )
        return keys, values

    def commit(self, count: int) -> None:
        """Count the rows in that every block has written."""
        self.length += count

    def trim(self) -> None:
        """Free the pages that no committed position is in."""
        del self.pages[-(-self.length // PAGE_POSITIONS) :]

    def truncate(self, length: int) -> None:
        """Forget positions from `length` on, and pages past the one after it."""
        self.length = length
        del self.pages[-(-length // PAGE_POSITIONS) + 1 :]

    def save(self) -> KVState:
        """A copy on the host; see `KVState`. int8 caches are saved as float32."""
        blocks, spec = self._layout.blocks, self._layout.spec
        kind = np.float16 if self._layout.kv == "float16" else np.float32
        shape = (blocks, self.length, spec.num_kv_heads, spec.head_dim)
        sides = []
        for side in (0, 1):
            saved = np.empty(shape, dtype=kind)
            for page, _, rows in _pieces(0, self.length):
                for block in range(blocks):
                    values = self.pages[page].read(block, side, count_of(rows))
                    saved[block, rows] = values.transpose(0, 1).cpu().numpy()
            sides.append(saved)
        return KVState(*sides)

    def restore(self, state: KVState) -> None:
        """Append saved positions to this empty cache. Raises `DeviceMemoryError`."""
        self.reserve(state.length)
        for block in range(self._layout.blocks):
            keys, values = (
                torch.from_numpy(np.array(side[block], dtype=np.float32)).to(self._layout.device)
                for side in (state.keys, state.values)
            )
            self.write(block, keys, values)
        self.commit(state.length)

    def copy_from(self, source: SequenceCache, length: int) -> None:
        """Append the first `length` positions of `source` to this empty cache. Raises as `reserve`."""
        self.reserve(length)
        for page, _, _ in _pieces(0, length):
            self.pages[page].buffer.copy_(source.pages[page].buffer)
        self.commit(length)


def count_of(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _pieces(start: int, count: int) -> Iterator[tuple[int, int, slice]]:
    """(page, first position in it, rows) of `count` rows that begin at position `start`."""
    done = 0
    while done < count:
        page, place = divmod(start + done, PAGE_POSITIONS)
        here = min(PAGE_POSITIONS - place, count - done)
        yield page, place, slice(done, done + here)
        done += here
