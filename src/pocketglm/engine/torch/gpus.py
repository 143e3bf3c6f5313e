"""The GPUs that PyTorch can use here, for a plan.

Enters: nothing. Leaves: what is free on each. PyTorch is imported only where the system has a GPU's device
file (or is not Linux), since that takes seconds.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

from pocketglm.plan.machine import Gpu

DEVICE_FILES = ("nvidia0", "nvidiactl", "kfd", "dxg")
"""Below /dev: NVIDIA's, AMD's, and the one of Linux in Windows."""

MEASURED_BYTES = 256 << 20
COPIES = 20


def available_gpus(devices: Path = Path("/dev")) -> tuple[Gpu, ...]:
    """CUDA's GPUs, with the memory that is free once a process uses them, and its measured rate."""
    if find_spec("torch") is None or not may_have_gpu(devices):
        return ()
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(_measured(index) for index in range(torch.cuda.device_count()))


def may_have_gpu(devices: Path) -> bool:
    """Whether importing PyTorch may find a GPU."""
    return sys.platform != "linux" or any((devices / name).exists() for name in DEVICE_FILES)


def _measured(index: int) -> Gpu:
    import torch

    device = torch.device("cuda", index)
    with torch.cuda.device(device):
        rate = _copy_rate(device)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
    return Gpu(torch.cuda.get_device_name(device), f"cuda:{index}", free, read_bytes_per_s=rate)


def _copy_rate(device: object) -> float:
    """Bytes a second that the GPU's memory reads: a copy reads and writes every byte once."""
    import torch

    source = torch.empty(MEASURED_BYTES, dtype=torch.uint8, device=str(device))
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(COPIES):
        target.copy_(source)
    torch.cuda.synchronize()
    return 2 * COPIES * MEASURED_BYTES / (time.perf_counter() - began)
