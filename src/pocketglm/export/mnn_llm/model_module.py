"""A whole decoder as one PyTorch module without weights, as MNN's own language-model runtime wants it.

Enters: a `ModelSpec`. Leaves: a module with that runtime's inputs and output,

    input_ids       float32 [rows, 1, n]   embedding rows, not ids (`weights.EmbeddingForm` for their n)
    attention_mask  see `attention_kind`
    position_ids    int32 [1, rows]; ChatGLM-6B: [1, 2, rows]
    logits_index    int32 [1]              the first row that gets logits; -1 for the last one only
    logits          float32 [1, rows, vocab]

Attention is the placeholder `PocketGLM::Attention`: MNN's operator of that name keeps the keys and
values of every step inside. This module needs torch at import.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.reference.rotary import frequencies
from pocketglm.export.decoder_module import DOMAIN, DecoderBlock, DecoderHead, linear, norm, rotate

HIDDEN = -10000.0
"""What is added to a score that a row must not see; e^-10000 is 0 in float32."""


class PlaceholderAttention(torch.autograd.Function):
    """queries [1, rows, heads, d], keys and values [1, rows, kv_heads, d], mask -> [1, rows, heads * d]."""

    @staticmethod
    def symbolic(graph: Any, q: Any, k: Any, v: Any, mask: Any, size: int) -> Any:
        result = graph.op(f"{DOMAIN}::Attention", q, k, v, mask, size_i=size)
        return result.setType(q.type().with_sizes([1, None, size]))

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, size: int) -> Tensor:
        return q.new_zeros(1, q.shape[1], size)


class CachingBlock(DecoderBlock):
    """hidden [rows, 1, hidden], rotation, mask -> hidden. The cache is the operator's own."""

    def forward(self, hidden: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        spec = self.spec
        normed = norm(spec, hidden, "input_norm")
        queries, keys, values = self.heads(normed)
        queries, keys = (rotate(spec, part, rotation) for part in (queries, keys))
        heads = [part.reshape(1, -1, *part.shape[2:]) for part in (queries, keys, values)]
        mixed: Tensor = PlaceholderAttention.apply(*heads, mask, spec.q_size)  # type: ignore[no-untyped-call]
        mixed = mixed.reshape(-1, 1, spec.q_size)
        change = linear(mixed, "attention.output", spec.q_size, spec.hidden_size)
        hidden = self._residual(hidden, normed, change, "attention_post_norm")
        normed = norm(spec, hidden, "mlp_norm")
        return self._residual(hidden, normed, self.mlp(normed), "mlp_post_norm")


class CachingDecoder(nn.Module):
    """input_ids, attention_mask, position_ids, logits_index -> logits. `parts` of an embedding row are
    added up (see `weights.EmbeddingForm`)."""

    frequencies: Tensor

    def __init__(self, spec: ModelSpec, parts: int = 1) -> None:
        super().__init__()
        self.spec, self._parts = spec, parts
        self.blocks = nn.ModuleList(CachingBlock(spec) for _ in range(spec.num_blocks))
        self.head = DecoderHead(spec)
        self.register_buffer("frequencies", torch.from_numpy(frequencies(spec.rotary)), persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, logits_index: Tensor
    ) -> Tensor:
        spec = self.spec
        hidden = self._embed(input_ids)
        positions = position_ids
        if spec.positions == "glm_2d":
            positions = _repaired_positions(position_ids[0], attention_mask)
            attention_mask = attention_mask.float() * HIDDEN
        angles = positions.float().unsqueeze(-1) * self.frequencies  # [axes, rows, pairs]
        rotation = torch.stack([torch.cos(angles), torch.sin(angles)], 0)
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, rotation, self._mask(attention_mask, index))
        hidden = hidden[logits_index.to(torch.int64) :, :, :]
        logits: Tensor = self.head(hidden)
        return logits.reshape(1, -1, spec.vocab_size)

    def _embed(self, rows: Tensor) -> Tensor:
        size = self.spec.hidden_size
        hidden = rows.reshape(-1, 1, self._parts * size)
        if self._parts > 1:
            pieces = [hidden[..., part * size : (part + 1) * size] for part in range(self._parts)]
            hidden = pieces[0]
            for piece in pieces[1:]:
                hidden = hidden + piece
        return hidden if self.spec.embedding_scale == 1.0 else hidden * self.spec.embedding_scale

    def _mask(self, attention_mask: Tensor, block: int) -> Tensor:
        """With a sliding window there are two masks, the full one first: [2, 1, 1, rows, columns]."""
        if not has_window(self.spec):
            return attention_mask
        return attention_mask[0 if self.spec.window_of(block) is None else 1]


def has_window(spec: ModelSpec) -> bool:
    """Whether some block sees less than the whole context."""
    window = spec.sliding_window
    return window is not None and window < spec.max_context and spec.sliding_window_start < spec.num_blocks


def _repaired_positions(position_ids: Tensor, mask: Tensor) -> Tensor:
    """ChatGLM-6B's positions [2, rows] from MNN's.

    While decoding, MNN 3.6 counts the answer's first token twice, so that the first position is one too
    small. It must be that of [gMASK], two before the end of the prompt: what the mask's width tells.
    """
    columns = mask.shape[3]
    first, second = position_ids[0], position_ids[1]
    first = torch.where(second > 0, columns - 1 - second, first)
    return torch.stack([first, second], 0)
