"""native/engine/engine_binding.cpp. Raises ValueError, OSError, MemoryError or RuntimeError."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Tensor: TypeAlias = tuple[int, int, int, int, int, bool, bool, int, int, int]
"""role, rows, inputs, bits, group, symmetric, has bias, offsets of codes, alpha and bias."""
File: TypeAlias = tuple[str, int, int, Sequence[Tensor]]
"""path, size, sliding window or 0, tensors."""
Segment: TypeAlias = tuple[int, int, int, int]
"""sequence, start, count, prefix."""

class Stage:
    def __init__(
        self,
        spec: Mapping[str, Any],
        blocks: Sequence[File],
        threads: int,
        kv_type: int,
        isa: str | None,
        memory: int,
        reserve: int = 0,
        streamed: Sequence[int] | None = None,
    ) -> None: ...
    def open(self, sequence: int, /) -> None: ...
    def close(self, sequence: int, /) -> None: ...
    def length(self, sequence: int, /) -> int: ...
    def truncate(self, sequence: int, length: int, /) -> None: ...
    def copy_prefix(self, source: int, target: int, length: int, /) -> None: ...
    def save(self, sequence: int, keys: Float32, values: Float32) -> None: ...
    def restore(self, sequence: int, keys: Float32, values: Float32, /) -> None: ...
    def forward(
        self, segments: Sequence[Segment], positions: NDArray[np.int32], hidden: Float32, output: Float32
    ) -> None: ...
    def usage(self) -> dict[str, Any]: ...
    def streamed(self) -> list[bool]: ...

class Head:
    def __init__(
        self,
        spec: Mapping[str, Any],
        file: File,
        threads: int,
        isa: str | None,
        memory: int,
        reserve: int = 0,
    ) -> None: ...
    def logits(self, hidden: Float32, output: Float32) -> None: ...
    def usage(self) -> dict[str, Any]: ...

class Sampler:
    def __init__(
        self,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        presence_penalty: float,
        frequency_penalty: float,
        vocab_size: int,
    ) -> None: ...
    def see(self, tokens: NDArray[np.int32], /) -> None: ...
    def ban(self, tokens: NDArray[np.int32], /) -> None: ...
    def bias(self, tokens: NDArray[np.int32], values: Float32, /) -> None: ...
    def accept(self, token: int, /) -> None: ...
    def next(self, logits: Float32, uniform: float) -> int: ...
    def distribution(
        self, logits: Float32, ids: NDArray[np.int32], probabilities: NDArray[np.float64]
    ) -> int: ...

def isa_names() -> list[str]: ...
