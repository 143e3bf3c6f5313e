"""One decoder block on a device.

Enters: hidden states of a pass and the block's weights. Leaves: hidden states; keys and values are in the
caches. The mathematics is that of `engine/reference/block.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch
from pocketglm.engine.reference.attention import Visibility
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.engine.torch import plain
from pocketglm.engine.torch.cache import SequenceCache
from pocketglm.engine.torch.weights import DeviceWeights


@dataclass(frozen=True)
class PassRows:
    """What all blocks share in one pass: where each segment's rows are, its cache, and the angles.

    cosine and sine are float32 [rows, axes * pairs].
    """

    segments: tuple[tuple[slice, SequenceCache, Visibility], ...]
    cosine: Tensor
    sine: Tensor

    @classmethod
    def of(
        cls, spec: ModelSpec, batch: Batch, caches: dict[int, SequenceCache], device: torch.device
    ) -> PassRows:
        segments, begin = [], 0
        for segment in batch.segments:
            rows = slice(begin, begin + segment.count)
            segments.append((rows, caches[segment.sequence], Visibility(segment.start, segment.prefix)))
            begin = rows.stop
        positions = np.concatenate([segment.positions for segment in batch.segments], axis=1)
        rotation = rotate_at(spec.rotary, positions)
        cosine, sine = (
            torch.from_numpy(table.reshape(batch.rows, -1)).to(device)
            for table in (rotation.cosine, rotation.sine)
        )
        return cls(tuple(segments), cosine, sine)


def block_forward(
    spec: ModelSpec, hidden: Tensor, weights: DeviceWeights, index: int, window: int | None, rows: PassRows
) -> Tensor:
    """Hidden states float32 [rows, hidden] through the stage's block `index`."""
    norms, linears = weights.norms, weights.linears
    normed = plain.norm(spec, hidden, norms["input_norm"])
    qkv = plain.linear(normed, linears["attention.qkv"])
    attended = _attention(spec, qkv, weights, index, window, rows)
    change = plain.linear(attended, linears["attention.output"])
    hidden = plain.residual(spec, hidden, normed, change, norms.get("attention_post_norm"))
    normed = plain.norm(spec, hidden, norms["mlp_norm"])
    inner = plain.activation(spec, plain.linear(normed, linears["mlp.gate_up" if spec.gated else "mlp.up"]))
    change = plain.linear(inner, linears["mlp.down"])
    return plain.residual(spec, hidden, normed, change, norms.get("mlp_post_norm"))


def _attention(
    spec: ModelSpec, qkv: Tensor, weights: DeviceWeights, index: int, window: int | None, rows: PassRows
) -> Tensor:
    """Attended values [rows, heads * head_dim] of qkv [rows, q + 2 * kv], which is changed in place."""
    heads = qkv.view(qkv.shape[0], -1, spec.head_dim)  # [rows, heads + 2 * kv_heads, head_dim]
    keys_at, values_at = spec.num_heads, spec.num_heads + spec.num_kv_heads
    if spec.qk_norm:
        for name, part in (("q_norm", heads[:, :keys_at]), ("k_norm", heads[:, keys_at:values_at])):
            weight = weights.norms[f"attention.{name}"].weight
            part.copy_(plain.rms_norm(part, weight, spec.norm_eps))
    plain.rotate(spec.rotary, heads[:, :values_at], rows.cosine, rows.sine)
    output = torch.empty(qkv.shape[0], spec.q_size, dtype=torch.float32, device=qkv.device)
    for piece, cache, place in rows.segments:
        queries, keys = heads[piece, :keys_at], heads[piece, keys_at:values_at]
        cache.write(index, keys, heads[piece, values_at:])
        columns = cache.read(index, place.start + len(queries))
        visibility = Visibility(place.start, place.prefix, window)
        output[piece] = plain.attention(queries, *columns, visibility)
    return output
