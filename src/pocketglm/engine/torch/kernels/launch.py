"""What the launches of all kernels share. Enters: a device, sizes. Leaves: settings."""

from __future__ import annotations

from functools import lru_cache

import torch

FUSED = {"enable_fp_fusion": True}
"""Products and sums may be one operation. Said here because Triton is about to change its default."""

INTERPRETED_PROCESSORS = 8
"""What Triton's interpreter passes for, so that work is split there as on a small GPU."""


@lru_cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a device."""
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def next_power_of_two(count: int) -> int:
    """The least power of two that is at least `count`: what Triton's tiles are made of."""
    return 1 << max(0, count - 1).bit_length()
