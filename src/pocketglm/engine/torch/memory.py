"""What the torch engine needs on a device, in bytes, known before anything is loaded.

Enters: a package or a spec. Leaves: sizes. Nothing here imports PyTorch or touches a device.
"""

from __future__ import annotations

from pocketglm.architecture.spec import ModelSpec
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import Package
from pocketglm.plan.kv_cache import KVType, kv_bytes_per_token

PAGE_POSITIONS = 64
"""Positions of one page of a KV cache."""


def block_bytes(package: Package, index: int) -> int:
    """Weights of one block: its file as it is, and a copy of its biases."""
    return _file_bytes(package, block_file(index))


def head_bytes(package: Package) -> int:
    """Weights of the head."""
    return _file_bytes(package, HEAD_FILE)


def page_bytes(spec: ModelSpec, blocks: int, kv: KVType) -> int:
    """One page of a KV cache in a stage of `blocks` blocks."""
    return kv_bytes_per_token(spec, kv) // spec.num_blocks * blocks * PAGE_POSITIONS


def cache_bytes(spec: ModelSpec, blocks: int, context: int, kv: KVType) -> int:
    """The KV cache of one sequence of `context` tokens in a stage of `blocks` blocks."""
    return -(-context // PAGE_POSITIONS) * page_bytes(spec, blocks, kv)


def _file_bytes(package: Package, name: str) -> int:
    manifest = package.manifest
    biases = (e.bias_bytes for e in manifest.weights[name] if isinstance(e, LinearEntry) and e.bias)
    return manifest.files[name].size + sum(biases)
