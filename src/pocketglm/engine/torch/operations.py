"""What a block is computed with: plain PyTorch anywhere, Triton's kernels on a GPU that has them.

Enters: a device. Leaves: `Operations`. Triton is imported only where its kernels are wanted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch
from pocketglm.engine.torch import plain
from pocketglm.engine.torch.cache import CacheLayout, SequenceCache
from pocketglm.engine.torch.device import INSTALL_HINT, current
from pocketglm.engine.torch.plain_pass import PlainPass
from pocketglm.engine.torch.weights import DeviceLinear, DeviceNorm, DeviceWeights
from pocketglm.errors import MissingExtraError

LEAST_CAPABILITY = (8, 0)
"""Compute capability from which Triton multiplies on tensor cores (Ampere)."""


class Functions(Protocol):
    """The operations on rows; `plain` says what each computes."""

    def linear(self, x: Tensor, layer: DeviceLinear) -> Tensor: ...
    def norm(self, spec: ModelSpec, x: Tensor, weights: DeviceNorm) -> Tensor: ...
    def activation(self, spec: ModelSpec, x: Tensor) -> Tensor: ...
    def residual_norm(
        self,
        spec: ModelSpec,
        hidden: Tensor,
        normed: Tensor,
        change: Tensor,
        post_norm: DeviceNorm | None,
        next_norm: DeviceNorm | None,
    ) -> tuple[Tensor, Tensor]: ...


class Pass(Protocol):
    """Attention in one forward pass; see `PlainPass`."""

    def attend(self, qkv: Tensor, weights: DeviceWeights, index: int, window: int | None) -> Tensor: ...


Replay = Callable[[], Tensor]
"""Computes again from the same buffers; the tensor it returns holds the result until the next call."""

Record = Callable[[Callable[[], Tensor], torch.device], Replay]
"""Makes a replay of a computation, which it may call. Raises where it cannot."""

PassOf = Callable[[CacheLayout, Batch, Mapping[int, SequenceCache]], Pass]


@dataclass(frozen=True)
class Operations:
    """`pass_of` prepares a pass, `functions` do the rest of a block."""

    functions: Functions
    pass_of: PassOf
    kernels: bool


PLAIN = Operations(plain, PlainPass.of, kernels=False)


def choose_operations(device: torch.device, kernels: bool | None) -> Operations:
    """Triton's kernels or plain PyTorch; None leaves the choice to the device.

    Raises `MissingExtraError` where kernels are demanded and Triton cannot be imported. Where they are not
    demanded and cannot run, a warning says so.
    """
    if kernels is None:
        kernels = has_tensor_cores(device) and _triton_error() is None and kernels_run(device)
    if not kernels:
        return PLAIN
    if (error := _triton_error()) is not None:
        raise MissingExtraError(f"Triton cannot be imported ({error})", hint=INSTALL_HINT) from error
    from pocketglm.engine.torch.kernels import functions
    from pocketglm.engine.torch.kernels.paged_pass import PagedPass

    return Operations(cast(Functions, functions), PagedPass.of, kernels=True)


def recorder(device: torch.device, operations: Operations) -> Record | None:
    """How passes are recorded on a device; None where they are not."""
    if not operations.kernels or device.type != "cuda":
        return None
    from pocketglm.engine.torch.kernels.replay import record_graph

    return record_graph


def has_tensor_cores(device: torch.device) -> bool:
    """Whether the device is a GPU whose tensor cores Triton uses."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


@lru_cache
def kernels_run(device: torch.device) -> bool:
    """Whether a small kernel runs on the device. Triton also needs a C compiler, for its launchers."""
    from pocketglm.engine.torch.kernels.linear import half_rows

    try:
        with current(device):
            half_rows(torch.ones(1, 16, device=device), 16, split_pairs=False)[0].cpu()
    except Exception as error:  # of many kinds: the compiler's, the driver's, the operating system's
        warnings.warn(f"plain PyTorch is used on {device}: Triton fails ({error})", stacklevel=2)
        return False
    return True


def _triton_error() -> ImportError | None:
    try:
        import_module("triton")
    except ImportError as error:
        return error
    return None
