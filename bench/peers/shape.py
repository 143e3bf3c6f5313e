"""The model that all peers run: sizes, and the list of its matrices.

It is a Llama block, because that is what everybody can run: RMS norm, rotary embedding, attention, gated
SiLU. With 4096 wide hidden states and 11008 in the MLP it has 202.4 million parameters, ChatGLM-6B's
block 201.3 million.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NORM_EPS = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model. Heads are `hidden // heads` wide."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    blocks: int
    vocabulary: int
    max_context: int = 16384

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim

    def block_matrices(self) -> dict[str, tuple[int, int]]:
        """Name -> [out, in] of one block's linear layers."""
        return {
            "q": (self.hidden, self.hidden),
            "k": (self.kv_size, self.hidden),
            "v": (self.kv_size, self.hidden),
            "o": (self.hidden, self.hidden),
            "gate": (self.intermediate, self.hidden),
            "up": (self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }

    @property
    def block_parameters(self) -> int:
        return sum(rows * inputs for rows, inputs in self.block_matrices().values())

    @property
    def parameters(self) -> int:
        """Weights that one token passes through: all blocks and the head, without the embedding."""
        return self.blocks * self.block_parameters + self.vocabulary * self.hidden

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


BLOCK8 = Shape(4096, 11008, 32, 32, 8, 1024)
"""Llama-2-7B's block, the size of ChatGLM-6B's. The vocabulary is small, so that the head does not count."""

BLOCK8_KV2 = Shape(4096, 13696, 32, 2, 8, 1024)
"""ChatGLM3-6B's sizes: 2 KV heads, for long contexts."""

FULL = Shape(4096, 11008, 32, 32, 28, 130528)
"""As many blocks of that size, and as wide a head, as ChatGLM-6B has."""

TINY = Shape(256, 512, 4, 2, 2, 512)
"""For the tests of the benchmark itself."""
