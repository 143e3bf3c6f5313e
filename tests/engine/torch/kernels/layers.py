"""Random layers as a package stores them, on a device."""

from __future__ import annotations

import numpy as np
import torch

from pocketglm.engine.torch.weights import DeviceLinear
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import quantize_rows


def random_layer(
    shape: tuple[int, int], weight_format: WeightFormat, device: torch.device, *, bias: bool = True
) -> DeviceLinear:
    """A layer [out, in] of seeded weights whose products with normal rows are of order one."""
    generator = np.random.default_rng(shape[0] * 1000 + shape[1])
    weight = generator.normal(0.02, shape[1] ** -0.5, shape).astype(np.float32)
    offset = torch.from_numpy(generator.normal(size=shape[0]).astype(np.float32)).to(device)
    codes: torch.Tensor = torch.from_numpy(weight)
    alpha = None
    if weight_format.quantized:
        rows = quantize_rows(weight, weight_format)
        codes, alpha = torch.from_numpy(rows.codes), torch.from_numpy(rows.alpha).to(device)
    elif weight_format.bits == 16:
        codes = codes.half()
    return DeviceLinear(shape, weight_format, codes.to(device), alpha, offset if bias else None)
