"""The torch engine: PyTorch on a GPU, or on whatever device PyTorch has.

Enters: a package. Leaves: stages and the head. Weights lie on the device in the package's own bytes and
are dequantized inside the matrix products. PyTorch is imported when something is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pocketglm.engine.checks import check_block_range
from pocketglm.engine.contract import HEAD, Capabilities, EngineOptions, KVType
from pocketglm.engine.torch.device import (
    DEVICE_KINDS,
    choose_device,
    device_memory,
    find_gpu,
    free_memory,
    give_back,
    limit_memory,
)
from pocketglm.engine.torch.memory import block_bytes, cache_bytes, head_bytes
from pocketglm.errors import DeviceMemoryError
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.reader import Package

if TYPE_CHECKING:
    import torch

    from pocketglm.engine.torch.operations import Record
    from pocketglm.engine.torch.stage import TorchHead, TorchStage
    from pocketglm.engine.torch.weights import DeviceWeights


class TorchEngine:
    """See `contract.Engine`. `kv` is what KV caches hold where the options leave it open; `kernels` says
    whether Triton's kernels compute (None: where the device has tensor cores and Triton is there), `record`
    how passes of theirs that decode are recorded (None: as CUDA graphs on CUDA, nowhere else)."""

    name = "torch"

    def __init__(
        self, kv: KVType = "float16", kernels: bool | None = None, record: Record | None = None
    ) -> None:
        self._kv = kv
        self._kernels = kernels
        self._record = record

    def capabilities(self) -> Capabilities:
        weights = frozenset({32, 16, 8, 4})
        return Capabilities(weights, DEVICE_KINDS, batched=True, kv_types=("float32", "float16", "int8"))

    def find_gpu(self) -> str | None:
        """The backend to use where a GPU is asked for and not named; None where there is none."""
        return find_gpu()

    def memory_need(self, package: Package, part: range | None, options: EngineOptions) -> int:
        """Bytes that blocks with the caches that the options plan for, or the head (None), hold on the
        device, beside the activations of a pass."""
        if part is None:
            return head_bytes(package)
        weights = sum(block_bytes(package, index) for index in part)
        return weights + cache_bytes(package.spec, len(part), options.context or 1, options.kv or self._kv)

    def load_blocks(self, package: Package, blocks: range, options: EngineOptions) -> TorchStage:
        check_block_range(package.spec, blocks)
        device = choose_device(options, blocks)
        _check_memory(package, sum(block_bytes(package, index) for index in blocks), device, options)
        _check_device_memory(package, self.memory_need(package, blocks, options), device, options)
        from pocketglm.engine.torch.cache import CacheLayout
        from pocketglm.engine.torch.operations import choose_operations, recorder
        from pocketglm.engine.torch.stage import TorchStage

        layout = CacheLayout(package.spec, len(blocks), options.kv or self._kv, device)
        operations = choose_operations(device, self._kernels)
        what = f"the weights of blocks {blocks.start} to {blocks.stop - 1}"
        weights = _load(package, map(block_file, blocks), device, what)
        record = self._record or recorder(device, operations)
        return TorchStage(package.spec, blocks, weights, layout, operations, record, options.threads)

    def load_head(self, package: Package, options: EngineOptions) -> TorchHead:
        device = choose_device(options, [HEAD])
        _check_memory(package, head_bytes(package), device, options)
        _check_device_memory(package, head_bytes(package), device, options)
        from pocketglm.engine.torch.operations import choose_operations
        from pocketglm.engine.torch.stage import TorchHead

        operations = choose_operations(device, self._kernels)
        (weights,) = _load(package, [HEAD_FILE], device, "the weights of the head")
        return TorchHead(package.spec, weights, device, operations, options.threads)


def _load(package: Package, names: Iterable[str], device: torch.device, what: str) -> list[DeviceWeights]:
    """Weight files on the device: all of them, or none and `DeviceMemoryError`."""
    from pocketglm.engine.torch.weights import load_weights

    loaded: list[DeviceWeights] = []
    try:
        with device_memory(f"{what} on {device}"):
            for name in names:
                loaded.append(load_weights(package, name, device))
    except BaseException:
        loaded.clear()
        give_back(device)
        raise
    return loaded


def _check_memory(package: Package, need: int, device: torch.device, options: EngineOptions) -> None:
    """On the CPU the weights must fit into the process's limit; a GPU's memory is not the process's."""
    if device.type != "cpu" or options.memory_left is None or need <= options.memory_left:
        return
    allowed = _mib(max(0, options.memory_left))
    raise DeviceMemoryError(
        f"the torch engine needs {_mib(need)} for the weights, {allowed} are allowed",
        where=package.path,
        hint="allow more memory, convert with fewer bits, or use the native engine, which streams",
    )


def _check_device_memory(package: Package, need: int, device: torch.device, options: EngineOptions) -> None:
    """What is known before the load fits, so that nothing is read in vain; what comes later, PyTorch itself
    refuses."""
    limit, taken, free = options.gpu_memory_bytes, options.gpu_memory_taken, free_memory(device)
    if limit is not None:
        limit_memory(device, limit)
    if free is not None and need > free:
        allowed = f"{_mib(free)} are free"
    elif limit is not None and taken + need > limit:
        allowed = f"of the {_mib(limit)} allowed {_mib(taken)} are taken"
    else:
        return
    raise DeviceMemoryError(
        f"{_mib(need)} are needed on {device}, {allowed}",
        where=package.path,
        hint="allow more memory of the GPU, place fewer blocks on it, or ask for less context",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
