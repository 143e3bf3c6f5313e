"""Weights of a package's file on a device, in the bytes that the package stores.

Enters: a package and the name of a weight file. Leaves: one buffer on the device that holds the file as
it is, and its linear layers and vectors as tensors, most of them views of that buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pocketglm.errors import IntegrityError
from pocketglm.package.encoding import LinearEntry, VectorEntry
from pocketglm.package.reader import COPY_AGAIN, Package
from pocketglm.quantize.formats import WeightFormat

COPY_BYTES = 32 << 20
"""Bytes of a file that stand in the host's memory at a time on their way to another device."""


@dataclass(frozen=True)
class DeviceLinear:
    """A linear layer [out, in] as stored; see `package.reader.StoredLinear`.

    codes: uint8 [out, code_bytes], or float16/float32 [out, in] for unquantized formats.
    alpha: float16 [out, groups, 2] (zero, scale), [out, groups, 1] (scale) if symmetric, or None.
    bias: float32 [out] or None.
    """

    shape: tuple[int, int]
    format: WeightFormat
    codes: torch.Tensor
    alpha: torch.Tensor | None
    bias: torch.Tensor | None


@dataclass(frozen=True)
class DeviceNorm:
    """A norm's float32 weight [n], and its bias where it has one."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class DeviceWeights:
    """One weight file on a device. `tensors` are what it holds there, each counted once."""

    linears: Mapping[str, DeviceLinear]
    norms: Mapping[str, DeviceNorm]
    tensors: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def load_weights(package: Package, name: str, device: torch.device) -> DeviceWeights:
    """The weight file `name` on `device`. PyTorch's errors for short memory pass through."""
    entries = package.manifest.weights[name]
    buffer = _read_file(package.path / name, package.manifest.files[name].size, device)
    linears, vectors = {}, {}
    held = [buffer]
    for entry in entries:
        if isinstance(entry, VectorEntry):
            vectors[entry.name] = _view(buffer, entry.offset, entry.end - entry.offset, torch.float32)
            continue
        linears[entry.name] = layer = _linear(buffer, entry)
        if layer.bias is not None:
            held.append(layer.bias)
    norms = {
        stem: DeviceNorm(weight, vectors.get(f"{stem}.bias"))
        for stem, weight in ((n.removesuffix(".weight"), v) for n, v in vectors.items())
        if not stem.endswith(".bias")
    }
    return DeviceWeights(linears, norms, tuple(held))


def _linear(buffer: torch.Tensor, entry: LinearEntry) -> DeviceLinear:
    out, columns = entry.shape
    alpha = bias = None
    if entry.format.quantized:
        codes = _view(buffer, entry.codes_offset, entry.codes_bytes, torch.uint8).view(out, -1)
        groups = entry.format.groups(columns)
        alpha = _view(buffer, entry.alpha_offset, entry.alpha_bytes, torch.float16).view(out, groups, -1)
    else:
        kind = torch.float16 if entry.format.bits == 16 else torch.float32
        codes = _view(buffer, entry.codes_offset, entry.codes_bytes, kind).view(out, columns)
    if entry.bias:  # a copy: in the file it may lie on any even byte
        bias = buffer[entry.bias_offset : entry.bias_offset + entry.bias_bytes].clone().view(torch.float32)
    return DeviceLinear(entry.shape, entry.format, codes, alpha, bias)


def _view(buffer: torch.Tensor, offset: int, size: int, kind: torch.dtype) -> torch.Tensor:
    return buffer[offset : offset + size].view(kind)


def _read_file(path: Path, size: int, device: torch.device) -> torch.Tensor:
    """The file's bytes on the device. Raises `IntegrityError` where the file has become shorter."""
    buffer = torch.empty(size, dtype=torch.uint8, device=device)
    on_host = device.type == "cpu"
    staging = buffer if on_host else torch.empty(min(size, COPY_BYTES), dtype=torch.uint8)
    with path.open("rb", buffering=0) as file:
        for start in range(0, size, COPY_BYTES):
            count = min(COPY_BYTES, size - start)
            piece = staging[start : start + count] if on_host else staging[:count]
            view = piece.numpy().data
            read = 0
            while read < count:
                got = file.readinto(view[read:])
                if not got:
                    raise IntegrityError(f"ends before byte {size}", where=path, hint=COPY_AGAIN)
                read += got
            if not on_host:
                buffer[start : start + count].copy_(piece)
    return buffer
