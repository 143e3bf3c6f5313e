"""How fast a machine runs the blocks of a package: measured, or worked out from bandwidths.

Enters: what a calibration measured, or a manifest and bandwidths that somebody assumes. Leaves: `Rates`,
all that `speed_model.py` needs to know of a machine's CPU and disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pocketglm.architecture.spec import ModelSpec
from pocketglm.package.manifest import Manifest
from pocketglm.plan.kv_cache import KV_TYPES, KVType, kv_bytes_per_token
from pocketglm.plan.native_memory import block_sizes, head_file_bytes

OF_READING = 0.8
"""Part of the memory's read rate that the native engine's decoding of large blocks reaches where nothing
was measured: 0.70 to 0.89 in docs/benchmarks.md."""

OF_DOT_PRODUCTS = 0.6
"""Part of the rate of byte dot products that a prefill reaches there: 0.64 to 0.66."""

BLOCK_OVERHEAD_S = 6e-5
"""Norms, attention's start and the threads' meetings in one block, where nothing was measured."""


@dataclass(frozen=True)
class Bandwidths:
    """Of a machine, not of a model: bytes per second of RAM and disk, and byte dot-product operations
    (multiplications and additions) per second, all threads together."""

    read: float
    disk: float
    dot: float


@dataclass(frozen=True)
class Rates:
    """Times of one token in seconds.

    `block_s` is decoding through a block of `block_bytes`, `position_s` what every cached position adds
    in a block, by KV type; `row_s` is one row of a long prefill through a block, `row_position_s` what
    every cached position adds to it; `head_s` is the head for one row, `step_s` what Python adds to a
    token. `streamed` is the rate at which blocks come from disk while nothing is computed, bytes per
    second; `crowding` the part of their speed that reading and computing lose while both are at work: they
    share the memory and, now and then, a processor. `measured` is false where all of it was worked out.
    """

    bandwidths: Bandwidths
    block_bytes: int
    block_s: float
    position_s: Mapping[KVType, float]
    row_s: float
    row_position_s: float
    head_s: float
    step_s: float
    streamed: float
    crowding: float
    measured: bool = True

    @classmethod
    def estimated(cls, manifest: Manifest, bandwidths: Bandwidths) -> Rates:
        """Where nothing was measured with this model: from bandwidths alone."""
        spec = manifest.spec
        sizes = block_sizes(manifest, range(spec.num_blocks)).values()
        size = sum(sizes) // len(sizes)
        reading = bandwidths.read * OF_READING
        positions = {kv: kv_bytes_per_token(spec, kv) / spec.num_blocks / reading for kv in KV_TYPES}
        return cls(
            bandwidths,
            block_bytes=size,
            block_s=size / reading + BLOCK_OVERHEAD_S,
            position_s=positions,
            row_s=2 * block_weights(spec) / (bandwidths.dot * OF_DOT_PRODUCTS),
            row_position_s=4 * spec.num_heads * spec.head_dim / (bandwidths.dot * OF_DOT_PRODUCTS / 8),
            head_s=head_file_bytes(manifest) / reading,
            step_s=2e-4,
            streamed=bandwidths.disk,
            crowding=0.0,
            measured=False,
        )

    def on(self, bandwidths: Bandwidths) -> Rates:
        """The same model on a machine with other bandwidths: times change as what bounds them does."""
        reads, dots = self.bandwidths.read / bandwidths.read, self.bandwidths.dot / bandwidths.dot
        return replace(
            self,
            bandwidths=bandwidths,
            block_s=self.block_s * reads,
            position_s={kv: seconds * reads for kv, seconds in self.position_s.items()},
            row_s=self.row_s * dots,
            row_position_s=self.row_position_s * dots,
            head_s=self.head_s * reads,
            streamed=self.streamed * bandwidths.disk / self.bandwidths.disk,
        )


def block_weights(spec: ModelSpec) -> int:
    """Weights of the matrices of one block."""
    up = spec.intermediate_size * (2 if spec.gated else 1)
    qkv = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    rows = qkv + up
    return spec.hidden_size * (rows + spec.num_heads * spec.head_dim + spec.intermediate_size)


def is_rate(value: object) -> bool:
    """A positive finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
