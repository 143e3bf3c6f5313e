from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pocketglm.engine.contract import HEAD, EngineOptions
from pocketglm.engine.torch.device import (
    choose_device,
    device_memory,
    find_gpu,
    limit_memory,
    open_device,
)
from pocketglm.errors import DeviceMemoryError, EngineError


def test_default_is_the_gpu_where_there_is_one() -> None:
    assert open_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_unknown_backend_lists_what_there_is() -> None:
    with pytest.raises(EngineError, match="no backend 'vulkan'") as error:
        open_device("vulkan")
    assert "cuda" in str(error.value.hint)


@pytest.mark.parametrize("name", ["cuda:99", "xpu", "mps"])
def test_absent_device_is_refused_by_name(name: str) -> None:
    kind = name.split(":")[0]
    if name in ("xpu", "mps") and getattr(torch, kind).is_available():
        pytest.skip(f"this machine has {kind}")
    with pytest.raises(EngineError, match=f"cannot use the device '{name}'"):
        open_device(name)


@pytest.mark.parametrize(("name", "index"), [("cuda", 2), ("cuda:1", 1)])
@pytest.mark.parametrize(("size", "fraction"), [(1 << 30, 0.125), (1 << 40, 1.0)])
def test_memory_of_a_cuda_device_is_limited(
    name: str, index: int, size: int, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch takes a fraction, and only of a device with a number. The CUDA calls are stood in for."""
    calls: list[tuple[float, object]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: calls.append(given))
    limit_memory(torch.device(name), size)
    limit_memory(torch.device("cpu"), size)
    assert calls == [(fraction, index)]


def test_the_first_gpu_that_works_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cuda", "xpu", "mps"):
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: False)
    assert find_gpu() is None
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    assert find_gpu() == "mps"
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert find_gpu() == "xpu"


def test_backends_are_named_by_part() -> None:
    options = EngineOptions(backend={0: "cpu", 1: "cpu", 2: "cuda", HEAD: "cpu"})
    assert choose_device(options, range(2)).type == "cpu"
    assert choose_device(options, [HEAD]).type == "cpu"
    with pytest.raises(EngineError, match="several devices: cpu, cuda"):
        choose_device(options, range(3))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
    ids=["cuda", "python", "cpu", "mps"],
)
def test_short_memory_has_one_error(error: Exception) -> None:
    with (
        pytest.raises(DeviceMemoryError, match="out of device memory for the test"),
        device_memory("the test"),
    ):
        raise error


def test_a_real_allocation_that_cannot_be_is_a_memory_error() -> None:
    with pytest.raises(DeviceMemoryError), device_memory("the test"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), device_memory("the test"):
        raise RuntimeError("shapes differ")


def test_without_torch_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pocketglm.engine.registry import get_engine\n"
        "from pocketglm.engine.contract import EngineOptions\n"
        "from pocketglm.engine.torch.device import choose_device\n"
        "from pocketglm.errors import MissingExtraError\n"
        "get_engine('torch').capabilities()\n"
        "try:\n    choose_device(EngineOptions(), [0])\n"
        "except MissingExtraError as error:\n    print(error.hint)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "pocketglm[torch]" in output
