"""What blocks, head and caches take of a GPU's memory, known before anything is loaded.

Enters: a manifest or a spec. Leaves: bytes. Weights lie on a device in the package's own bytes.
"""

from __future__ import annotations

from pocketglm.architecture.spec import ModelSpec
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.manifest import Manifest
from pocketglm.plan.kv_cache import KVType, kv_bytes_per_token

PAGE_POSITIONS = 64
"""Positions of one page of a KV cache."""


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


def _file_bytes(manifest: Manifest, name: str) -> int:
    biases = (e.bias_bytes for e in manifest.weights[name] if isinstance(e, LinearEntry) and e.bias)
    return manifest.files[name].size + sum(biases)
