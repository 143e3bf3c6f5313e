"""A run of blocks on a device, with the KV caches of its sequences, and the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.checks import check_forward, check_hidden
from pocketglm.engine.contract import Batch, Float32
from pocketglm.engine.sequences import SequenceStage
from pocketglm.engine.torch.block import blocks_forward
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.device import current, device_memory, give_back
from pocketglm.engine.torch.operations import Operations, Pass, Record
from pocketglm.engine.torch.weights import DeviceWeights
from pocketglm.errors import DeviceMemoryError, EngineError

if TYPE_CHECKING:
    from pocketglm.engine.torch.kernels.replay import Replayer

LOGITS_AT_ONCE = 1 << 24
"""Logits that stand on the device at a time (64 MiB)."""


class TorchStage(SequenceStage[SequenceCache]):
    """See `contract.Stage`."""

    def __init__(
        self,
        spec: ModelSpec,
        blocks: range,
        weights: Sequence[DeviceWeights],
        layout: CacheLayout,
        operations: Operations,
        record: Record | None,
        threads: int | None,
    ) -> None:
        super().__init__(spec, blocks, list(weights), lambda: SequenceCache(layout))
        self.device = layout.device
        self._layout = layout
        self._operations = operations
        self._threads = threads
        self._replayer = _replayer(layout, self._compute, record) if operations.kernels and record else None

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        self._check_loaded()
        check_forward(self._spec, hidden, batch, self._lengths())
        try:
            for segment in batch.segments:
                self._caches[segment.sequence].reserve(segment.count)
            with (
                device_memory(f"a pass of {batch.rows} rows"),
                cpu_threads(self._threads),
                current(self.device),
            ):
                output = self._run(hidden, batch)
        except DeviceMemoryError:
            for segment in batch.segments:
                self._caches[segment.sequence].trim()
            raise
        for segment in batch.segments:
            self._caches[segment.sequence].commit(segment.count)
        return output

    def release(self) -> None:
        super().release()
        if self._replayer:
            self._replayer.clear()
        give_back(self.device)

    def place_of(self, index: int) -> str:
        """`gpu`, or `ram` where PyTorch computes on the CPU."""
        return "ram" if self.device.type == "cpu" else "gpu"

    def usage(self) -> dict[str, int]:
        """Bytes on the device."""
        return {"weight_bytes": self.weight_bytes(), "cache_bytes": self.cache_bytes()}

    def weight_bytes(self) -> int:
        """Bytes of weights on the device."""
        return sum(weights.nbytes for weights in self._parts)

    def cache_bytes(self) -> int:
        """Bytes of all sequences' KV caches on the device."""
        return sum(page.buffer.nbytes for cache in self._caches.values() for page in cache.pages)

    @torch.inference_mode()
    def _run(self, hidden: Float32, batch: Batch) -> Float32:
        found = self._replayer.run(hidden, batch, self._caches) if self._replayer else None
        if found is None:
            rows = self._operations.pass_of(self._layout, batch, self._caches)
            found = self._compute(torch.from_numpy(np.array(hidden)).to(self.device), rows)
        output: Float32 = found.cpu().numpy()
        return output

    def _compute(self, hidden: Tensor, rows: Pass) -> Tensor:
        return blocks_forward(self._spec, hidden, self.blocks, self._parts, self._operations.functions, rows)


def _replayer(layout: CacheLayout, compute: Callable[[Tensor, Pass], Tensor], record: Record) -> Replayer:
    from pocketglm.engine.torch.kernels.replay import Replayer

    return Replayer(layout, compute, record)


class TorchHead:
    """See `contract.Head`."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: DeviceWeights,
        device: torch.device,
        operations: Operations,
        threads: int | None,
    ) -> None:
        self.device = device
        self._functions = operations.functions
        self._spec = spec
        self._weights: DeviceWeights | None = weights
        self._threads = threads

    def logits(self, hidden: Float32) -> Float32:
        if self._weights is None:
            raise EngineError("the head was released", hint="load it again")
        check_hidden(self._spec, hidden)
        size = f"the logits of {len(hidden)} rows of {self._spec.vocab_size}"
        with device_memory(size), cpu_threads(self._threads), current(self.device):
            return self._run(self._weights, hidden)

    def usage(self) -> dict[str, int]:
        """As `TorchStage.usage`."""
        return {"weight_bytes": self.weight_bytes()}

    def weight_bytes(self) -> int:
        """Bytes of weights on the device."""
        return 0 if self._weights is None else self._weights.nbytes

    def release(self) -> None:
        self._weights = None
        give_back(self.device)

    @torch.inference_mode()
    def _run(self, weights: DeviceWeights, hidden: Float32) -> Float32:
        step = max(1, LOGITS_AT_ONCE // self._spec.vocab_size)
        logits = np.empty((len(hidden), self._spec.vocab_size), dtype=np.float32)
        for start in range(0, len(hidden), step):
            x = torch.from_numpy(np.array(hidden[start : start + step])).to(self.device)
            normed = self._functions.norm(self._spec, x, weights.norms["norm"])
            found = self._functions.linear(normed, weights.linears["head"])
            logits[start : start + step] = found.cpu().numpy()
        return logits


@contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Holds PyTorch's own threads on the CPU to a number, where there is one, and gives it back after."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
