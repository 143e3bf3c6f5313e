"""How fast a placement runs: load, prefill and decode.

Enters: a manifest, a placement, `Rates`. Leaves: `Speed`. A decoded token reads every weight once and the
keys and values of its positions; blocks read from disk are read ahead while others are computed
(`reading_ahead.py`); what is on the GPU comes first and overlaps with nothing but the reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from pocketglm.package.manifest import Manifest
from pocketglm.plan import gpu_memory, native_memory
from pocketglm.plan.kv_cache import KV_BYTES, KVType
from pocketglm.plan.machine import Gpu
from pocketglm.plan.placement import Placement
from pocketglm.plan.python_memory import rows_at_once
from pocketglm.plan.rates import Rates
from pocketglm.plan.reading_ahead import Step, pass_seconds

GPU_OF_READING = 0.6
"""Part of a GPU memory's rate that decoding reaches: an assumption, no GPU was measured."""

GPU_BLOCK_S = 2.5e-4
"""What starting a block's operations on a GPU takes: about 30 of them at 8 microseconds; an assumption."""

GPU_LINK = 8e9
"""Bytes per second from RAM to a GPU: half of PCI Express 3.0 with 16 lanes; an assumption."""

CROSSING_S = 1e-4
"""Hidden states to a GPU or back: two waits for it; an assumption."""

LOAD_S = 0.05
"""Opening a package, mapping its files, making tables."""


@dataclass(frozen=True)
class Speed:
    """Seconds to load; rows of a prompt as long as the context, and tokens decoded at its end, a second."""

    load_s: float
    prefill_tps: float
    decode_tps: float


def predict_speed(
    manifest: Manifest, placement: Placement, context: int, rates: Rates, gpu: Gpu | None = None
) -> Speed:
    """`context` is how many tokens the cache holds. `gpu` is where blocks on a GPU are."""
    model = _Model(manifest, placement, rates, gpu)
    return Speed(model.load_s(), context / model.prefill_s(context), 1 / model.token_s(context))


@dataclass(frozen=True)
class _Model:
    manifest: Manifest
    placement: Placement
    rates: Rates
    gpu: Gpu | None

    def load_s(self) -> float:
        """RAM's blocks are mapped and come with the first pass; under a limit they are locked at once. What
        goes to a GPU is read and copied."""
        there = [index for index, place in enumerate(self.placement.blocks) if place == "gpu"]
        size = sum(gpu_memory.block_bytes(self.manifest, index) for index in there)
        size += gpu_memory.head_bytes(self.manifest) if self.placement.head == "gpu" else 0
        kept = 0
        if self.placement.memory is not None or self.placement.count("disk"):
            kept = sum(native_memory.block_sizes(self.manifest, self._at("ram")).values())
        return LOAD_S + size / GPU_LINK + (size + kept) / self.rates.bandwidths.disk

    def token_s(self, context: int) -> float:
        """One decoded token."""
        rates = self.rates
        after = rates.step_s + (rates.head_s if self.placement.head == "ram" else 0.0)
        blocks = [self._step(index, self._block_s(index, context)) for index in self._at("ram", "disk")]
        return pass_seconds([Step(self._gpu_s(context)), *blocks, Step(after)], rates.crowding)

    def prefill_s(self, rows: int) -> float:
        """A prompt of `rows` tokens: the blocks that are read come once for every piece of it."""
        rates, spec = self.rates, self.manifest.spec
        pieces = -(-rows // rows_at_once(spec, rows))
        # Where a prompt is a prefix, every row sees all of it, else the rows before it
        seen = rows if spec.prefix_tokens is not None else rows / 2
        piece_s = (rates.row_s + rates.row_position_s * seen) * rows / pieces
        gpu = self._gpu_s(rows) * 4  # compute-bound there: a guess, no GPU was measured
        blocks = [self._step(index, piece_s * self._of_average(index)) for index in self._at("ram", "disk")]
        return pieces * pass_seconds([Step(gpu), *blocks], rates.crowding) + rates.head_s + rates.step_s

    def _step(self, index: int, compute_s: float) -> Step:
        if self.placement.blocks[index] != "disk":
            return Step(compute_s)
        size = native_memory.block_sizes(self.manifest, [index])[index]
        return Step(compute_s, size / self.rates.streamed)

    def _block_s(self, index: int, context: int) -> float:
        window = self.manifest.spec.window_of(index)
        positions = min(context, window) if window else context
        rates = self.rates
        return rates.block_s * self._of_average(index) + rates.position_s[self.placement.kv] * positions

    def _gpu_s(self, context: int) -> float:
        if self.gpu is None or not self.placement.uses_gpu:
            return 0.0
        spec, there = self.manifest.spec, self._at("gpu")
        size = sum(gpu_memory.block_bytes(self.manifest, index) for index in there)
        size += gpu_memory.head_bytes(self.manifest) if self.placement.head == "gpu" else 0
        size += len(there) * _position_bytes(self.placement.kv) * context * spec.num_kv_heads * spec.head_dim
        speed = (self.gpu.read_bytes_per_s or 2e11) * GPU_OF_READING
        crossings = 2 * sum(run.place == "gpu" for run in self.placement.runs())
        return size / speed + GPU_BLOCK_S * len(there) + CROSSING_S * crossings

    def _of_average(self, index: int) -> float:
        """A block's size against those that were measured."""
        return native_memory.block_sizes(self.manifest, [index])[index] / self.rates.block_bytes

    def _at(self, *places: str) -> list[int]:
        return [index for index, place in enumerate(self.placement.blocks) if place in places]


def _position_bytes(kv: KVType) -> int:
    return int(2 * KV_BYTES[kv])
