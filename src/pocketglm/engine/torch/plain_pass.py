"""Attention of one forward pass in plain PyTorch: rotation, the cache, and the scores.

Enters: the segments of a pass and their caches. Leaves: attended values; keys and values are in the caches.
`kernels/paged_pass.py` is the same in Triton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch
from pocketglm.engine.reference.attention import Visibility
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.engine.torch import plain
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.weights import DeviceWeights


@dataclass(frozen=True)
class PlainPass:
    """Where each segment's rows are, its cache, and the angles, which all blocks share.

    rotation is float32 [2 (cosine, sine), rows, axes * pairs].
    """

    spec: ModelSpec
    segments: tuple[tuple[slice, SequenceCache, Visibility], ...]
    rotation: Tensor

    @classmethod
    def of(cls, layout: CacheLayout, batch: Batch, caches: Mapping[int, SequenceCache]) -> PlainPass:
        segments, begin = [], 0
        for segment in batch.segments:
            rows = slice(begin, begin + segment.count)
            segments.append((rows, caches[segment.sequence], Visibility(segment.start, segment.prefix)))
            begin = rows.stop
        rotation = torch.from_numpy(rotation_of(layout.spec, batch)).to(layout.device)
        return cls(layout.spec, tuple(segments), rotation)

    def attend(self, qkv: Tensor, weights: DeviceWeights, index: int, window: int | None) -> Tensor:
        """Attended values [rows, heads * head_dim] of qkv [rows, q + 2 kv], which is changed in place.

        `index` is the block's in its stage.
        """
        spec = self.spec
        heads = qkv.view(qkv.shape[0], -1, spec.head_dim)  # [rows, heads + 2 * kv_heads, head_dim]
        keys_at, values_at = spec.num_heads, spec.num_heads + spec.num_kv_heads
        if spec.qk_norm:
            for name, part in (("q_norm", heads[:, :keys_at]), ("k_norm", heads[:, keys_at:values_at])):
                weight = weights.norms[f"attention.{name}"].weight
                part.copy_(plain.rms_norm(part, weight, spec.norm_eps))
        plain.rotate(spec.rotary, heads[:, :values_at], *self.rotation)
        output = torch.empty(qkv.shape[0], spec.q_size, dtype=torch.float32, device=qkv.device)
        for piece, cache, place in self.segments:
            queries, keys = heads[piece, :keys_at], heads[piece, keys_at:values_at]
            cache.write(index, keys, heads[piece, values_at:])
            columns = cache.read(index, place.start + len(queries))
            visibility = Visibility(place.start, place.prefix, window)
            output[piece] = plain.attention(queries, *columns, visibility)
        return output


def rotation_of(spec: ModelSpec, batch: Batch) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Cosines and sines of a pass, float32 [2, rows, axes * pairs]."""
    positions = batch.positions
    rotation = rotate_at(spec.rotary, positions)
    return np.stack([rotation.cosine, rotation.sine]).reshape(2, batch.rows, -1)
