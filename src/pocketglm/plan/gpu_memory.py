"""What blocks, head and caches take of a GPU's memory, known before anything is loaded.

Enters: a manifest or a spec. Leaves: bytes. Weights lie on a device in the package's own bytes.
"""

from __future__ import annotations

from pocketglm.architecture.spec import ModelSpec
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.manifest import Manifest
from pocketglm.plan.kv_cache import KVType, kv_bytes_per_token
from pocketglm.plan.python_memory import rows_at_once

PAGE_POSITIONS = 64
"""Positions of one page of a KV cache."""

TILE_BYTES = 32 << 20
"""A tile of weights that the torch engine dequantizes at a time (`plain.DEVICE_TILE_BYTES`)."""

TILES = 3
"""Such tiles alive at once: codes apart, as numbers, and scaled."""

SCORES_BYTES = 4 * (16 << 20)
"""Attention scores, their mask and their softmax, of `plain.SCORES_AT_ONCE`."""

LOGITS_BYTES = 64 << 20
"""Logits that stand on the device at a time."""


def block_bytes(manifest: Manifest, index: int) -> int:
    """Weights of one block: its file as it is, and a copy of its biases."""
    return _file_bytes(manifest, block_file(index))


def head_bytes(manifest: Manifest) -> int:
    """Weights of the head."""
    return _file_bytes(manifest, HEAD_FILE)


def page_bytes(spec: ModelSpec, blocks: int, kv: KVType) -> int:
    """One page of a KV cache in a stage of `blocks` blocks."""
    return kv_bytes_per_token(spec, kv) // spec.num_blocks * blocks * PAGE_POSITIONS


def cache_bytes(spec: ModelSpec, blocks: int, context: int, kv: KVType) -> int:
    """The KV cache of one sequence of `context` tokens in a stage of `blocks` blocks."""
    return -(-context // PAGE_POSITIONS) * page_bytes(spec, blocks, kv)


def work_bytes(spec: ModelSpec, context: int) -> int:
    """What a pass takes at most beside weights and caches: a bound for plain PyTorch, whose allocator is
    not ours to count."""
    rows = rows_at_once(spec, context)
    up = spec.intermediate_size * (2 if spec.gated else 1)
    qkv = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    activations = 4 * rows * (4 * spec.hidden_size + qkv + up + spec.intermediate_size)
    columns = 2 * 4 * context * spec.num_kv_heads * spec.head_dim  # one block's cache, as float32
    logits = min(LOGITS_BYTES, 4 * spec.vocab_size * rows)
    return activations + columns + logits + TILES * TILE_BYTES + SCORES_BYTES


def _file_bytes(manifest: Manifest, name: str) -> int:
    biases = (e.bias_bytes for e in manifest.weights[name] if isinstance(e, LinearEntry) and e.bias)
    return manifest.files[name].size + sum(biases)
