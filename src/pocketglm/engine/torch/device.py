"""The device that PyTorch computes on: found by name, and its refusals turned into our errors.

Enters: names of backends from `EngineOptions`. Leaves: a `torch.device` that works, or an error. PyTorch
is imported here first, and only once a package is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from traceback import clear_frames
from typing import TYPE_CHECKING

from pocketglm.engine.contract import EngineOptions
from pocketglm.errors import DeviceMemoryError, EngineError, MissingExtraError

if TYPE_CHECKING:
    import torch

INSTALL_HINT = "install it with `pip install 'pocketglm[torch]'`"

DEVICE_KINDS = ("cpu", "cuda", "xpu", "mps")
"""Kinds of devices that a backend may name; `cuda:1` names the second of a kind."""

GPU_KINDS = DEVICE_KINDS[1:]

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "invalid buffer size")
"""What PyTorch's own messages say where a `RuntimeError` stands for too little memory."""


def require_torch() -> None:
    """Raises `MissingExtraError` where PyTorch cannot be imported."""
    try:
        import_module("torch")
    except ImportError as error:
        raise MissingExtraError(f"PyTorch cannot be imported ({error})", hint=INSTALL_HINT) from error


def choose_device(options: EngineOptions, parts: Iterable[int | str]) -> torch.device:
    """The one device of a stage's blocks or of the head. Raises `EngineError`, naming the backend.

    Unnamed, it is CUDA's where there is one, else the CPU.
    """
    named = {options.backend_of(part) for part in parts}
    if len(named) > 1:
        raise EngineError(
            f"blocks of one stage are given to several devices: {', '.join(sorted(map(str, named)))}",
            hint="name one backend for all of them, or load one stage for each device",
        )
    return open_device(named.pop())


def open_device(name: str | None) -> torch.device:
    """The device called `name`; it has computed something when this returns."""
    require_torch()
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in DEVICE_KINDS:
        raise EngineError(
            f"the torch engine knows no backend {name!r}", hint=f"choose one of: {', '.join(DEVICE_KINDS)}"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).add_(1)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EngineError(
            f"PyTorch cannot use the device {name!r} ({first_line})",
            hint="choose the backend cpu, or install a PyTorch that is built for this device",
        ) from error
    return device


def find_gpu() -> str | None:
    """The first kind of GPU that this PyTorch can use here."""
    require_torch()
    import torch

    return next((kind for kind in GPU_KINDS if getattr(torch, kind).is_available()), None)


def limit_memory(device: torch.device, size: int) -> None:
    """PyTorch takes no more of a CUDA device from now on; other devices know no such limit."""
    import torch

    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        _, total = torch.cuda.mem_get_info(index)
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), index)


def free_memory(device: torch.device) -> int | None:
    """Bytes that may still be allocated on a CUDA device; None for others, which do not say."""
    import torch

    if device.type != "cuda":
        return None
    give_back(device)
    return int(torch.cuda.mem_get_info(device)[0])


@contextmanager
def device_memory(what: str) -> Iterator[None]:
    """Turns the ways in which PyTorch says that memory is short into `DeviceMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory_error(error):
            raise
        clear_frames(
            error.__traceback__
        )  # whoever tries again while this error lives needs their tensors' room
        raise DeviceMemoryError(
            f"out of device memory for {what}",
            hint="place fewer blocks on the device, or ask for less context",
        ) from error


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one of its kind, which Triton's kernels and graphs run on."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def give_back(device: torch.device) -> None:
    """Lets the device have what PyTorch keeps of freed memory, for others and for exact figures."""
    import torch

    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).empty_cache()


def _is_memory_error(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _MEMORY_WORDS)
