"""What the torch engine needs on a device, in bytes, known before anything is loaded.

Enters: a package or a spec. Leaves: sizes, by the formulas that plans are made with. Nothing here
imports PyTorch or touches a device.
"""

from __future__ import annotations

from pocketglm.package.reader import Package
from pocketglm.plan import gpu_memory
from pocketglm.plan.gpu_memory import PAGE_POSITIONS as PAGE_POSITIONS
from pocketglm.plan.gpu_memory import cache_bytes as cache_bytes
from pocketglm.plan.gpu_memory import page_bytes as page_bytes


def block_bytes(package: Package, index: int) -> int:
    """Weights of one block: its file as it is, and a copy of its biases."""
    return gpu_memory.block_bytes(package.manifest, index)


def head_bytes(package: Package) -> int:
    """Weights of the head."""
    return gpu_memory.head_bytes(package.manifest)
