"""A CUDA graph's manners on the CPU, to see that a pass can be recorded.

Like a graph it computes once, keeps every kernel's launch and every operation of PyTorch with the very
tensors and numbers that they got, and replays those and no line of the engine's Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

MAKES_NO_WORK = ("aten.empty", "aten.view", "aten.select", "aten.slice", "aten.unbind", "aten.detach")
"""Operations that allocate or look at a tensor in another way: a replay sees the same memory."""

FORBIDDEN = ("aten._local_scalar_dense", "aten.item", "aten._to_copy")
"""Operations that wait for the device or carry data to or from it: a graph refuses them."""


class Launches(TorchDispatchMode):
    """While it is active, work is done and written down. `replay` does it again."""

    def __init__(self) -> None:
        super().__init__()
        self._work: list[Callable[[], object]] = []
        self._in_kernel = False

    def replay(self) -> None:
        for work in self._work:
            work()

    def __enter__(self) -> Any:
        self._run = InterpretedFunction.run
        recorder = self

        def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **settings: Any) -> Any:
            def launch() -> object:
                return recorder._run(kernel, *args, grid=grid, warmup=warmup, **settings)

            recorder._work.append(launch)
            recorder._in_kernel = True
            try:
                return launch()
            finally:
                recorder._in_kernel = False

        InterpretedFunction.run = run
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        InterpretedFunction.run = self._run

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = str(operation)
        if self._in_kernel or name.startswith(MAKES_NO_WORK):
            return result
        assert not name.startswith(FORBIDDEN), f"{name} cannot be recorded"
        assert isinstance(result, torch.Tensor), name
        self._work.append(lambda: result.copy_(operation(*args, **(kwargs or {}))))
        return result


def record_launches(compute: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """A `replay.Record`."""
    launches = Launches()
    with launches:
        output = compute()

    def replay() -> torch.Tensor:
        output.zero_()
        launches.replay()
        return output

    return replay
