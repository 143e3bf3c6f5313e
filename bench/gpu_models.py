"""Random models for `bench/gpu.py`, made on the device: the engine's own, and plain PyTorch in float16.

Enters: a spec of ChatGLM-6B's kind, a weight format, a device. Leaves: something that feeds rows and gives
the logits of the last one.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch, Segment
from pocketglm.engine.torch.cache import CacheLayout
from pocketglm.engine.torch.operations import choose_operations, recorder
from pocketglm.engine.torch.stage import TorchHead, TorchStage
from pocketglm.engine.torch.weights import DeviceLinear, DeviceNorm, DeviceWeights
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import WeightLayout, plan_block, plan_head
from pocketglm.quantize.formats import WeightFormat

Float32 = NDArray[np.float32]


class Model(Protocol):
    """One sequence. `weight_bytes` are read for every token."""

    weight_bytes: int

    def restart(self) -> None: ...
    def feed(self, hidden: Float32) -> Float32: ...


class EngineModel:
    """The torch engine's stage and head, as a session calls them."""

    def __init__(
        self, spec: ModelSpec, form: WeightFormat, device: torch.device, *, graphs: bool = True
    ) -> None:
        operations = choose_operations(device, None)
        record = recorder(device, operations) if graphs else None
        blocks = range(spec.num_blocks)
        layouts = [plan_block(spec, index, lambda name, shape: form) for index in blocks]
        weights = [random_weights(layout, device) for layout in layouts]
        head_form = WeightFormat(8) if form.quantized else form  # as a converter chooses
        head = random_weights(plan_head(spec, lambda name, shape: head_form), device)
        layout = CacheLayout(spec, len(blocks), "float16", device)
        self.kernels = operations.kernels
        self._stage = TorchStage(spec, blocks, weights, layout, operations, record, None)
        self._head = TorchHead(spec, head, device, operations, None)
        self.weight_bytes = self._stage.weight_bytes() + self._head.weight_bytes()
        self._axes = spec.rotary.axes

    def restart(self) -> None:
        self._stage.close(0)
        self._stage.open(0)

    def feed(self, hidden: Float32) -> Float32:
        start = self._stage.length(0)
        positions = np.tile(np.arange(start, start + len(hidden), dtype=np.int32), (self._axes, 1))
        output = self._stage.forward(hidden, Batch((Segment(0, start, positions),)))
        return self._head.logits(output[-1:])


def random_weights(layout: WeightLayout, device: torch.device) -> DeviceWeights:
    """A weight file's tensors of random values, on the device and nowhere else."""
    linears, vectors = {}, {}
    for entry in layout.entries:
        if isinstance(entry, LinearEntry):
            linears[entry.name] = random_linear(entry, device)
        else:
            vectors[entry.name] = torch.full(
                entry.shape, float(entry.name.endswith(".weight")), device=device
            )
    norms = {
        name.removesuffix(".weight"): DeviceNorm(weight, vectors.get(name.removesuffix("weight") + "bias"))
        for name, weight in vectors.items()
        if name.endswith(".weight")
    }
    layers = [tensor for layer in linears.values() for tensor in (layer.codes, layer.alpha, layer.bias)]
    return DeviceWeights(linears, norms, tuple(t for t in [*layers, *vectors.values()] if t is not None))


def random_linear(entry: LinearEntry, device: torch.device) -> DeviceLinear:
    """Weights that keep hidden states of order one."""
    out, inputs = entry.shape
    form, alpha = entry.format, None
    if form.quantized:
        codes = torch.randint(0, 256, (out, form.code_bytes(inputs)), dtype=torch.uint8, device=device)
        alpha = torch.zeros(out, form.groups(inputs), 2, dtype=torch.float16, device=device)
        alpha[..., 1] = inputs**-0.5 / (2**form.bits / math.sqrt(12))  # codes are uniform
    else:
        codes = torch.randn(out, inputs, dtype=torch.float16, device=device) * inputs**-0.5
    bias = torch.zeros(out, device=device) if entry.bias else None
    return DeviceLinear(entry.shape, form, codes, alpha, bias)


class Float16Model:
    """ChatGLM-6B's blocks as PyTorch has them: float16, its own matrix products and attention, no graphs."""

    def __init__(self, spec: ModelSpec, device: torch.device, context: int) -> None:
        self._spec, self._device = spec, device
        sizes = {
            "qkv": (3 * spec.hidden_size, spec.hidden_size),
            "output": (spec.hidden_size, spec.hidden_size),
            "up": (spec.intermediate_size, spec.hidden_size),
            "down": (spec.hidden_size, spec.intermediate_size),
        }
        self._blocks = [{n: self._matrix(*size) for n, size in sizes.items()} for _ in range(spec.num_blocks)]
        self._head = self._matrix(spec.vocab_size, spec.hidden_size)
        self._norm = (torch.ones(spec.hidden_size, dtype=torch.float16, device=device),) * 2
        shape = (spec.num_blocks, 2, 1, spec.num_heads, context, spec.head_dim)
        self._cache = torch.zeros(shape, dtype=torch.float16, device=device)
        angles = torch.arange(context)[:, None] / 10000.0 ** torch.linspace(0, 1, spec.head_dim // 2)
        self._angles = torch.stack([angles.cos(), angles.sin()]).half().to(device)
        matrices = [matrix for block in self._blocks for matrix in block.values()]
        self.weight_bytes = sum(matrix.nbytes for matrix in [*matrices, self._head])
        self._length = 0

    def restart(self) -> None:
        self._length = 0

    @torch.inference_mode()
    def feed(self, hidden: Float32) -> Float32:
        x = torch.from_numpy(hidden).to(self._device).half()
        for index in range(len(self._blocks)):
            x = self._block(x, index)
        self._length += len(x)
        logits = functional.linear(functional.layer_norm(x[-1:], x.shape[-1:], *self._norm), self._head)
        found: Float32 = logits.float().cpu().numpy()
        return found

    def _matrix(self, out: int, inputs: int) -> Tensor:
        return torch.randn(out, inputs, dtype=torch.float16, device=self._device) * inputs**-0.5

    def _block(self, x: Tensor, index: int) -> Tensor:
        block, alpha = self._blocks[index], self._spec.residual_alpha
        normed = functional.layer_norm(x, x.shape[-1:], *self._norm)
        attended = self._attention(functional.linear(normed, block["qkv"]), index)
        x = normed * alpha + functional.linear(attended, block["output"])
        normed = functional.layer_norm(x, x.shape[-1:], *self._norm)
        inner = functional.gelu(functional.linear(normed, block["up"]), approximate="tanh")
        return normed * alpha + functional.linear(inner, block["down"])

    def _attention(self, qkv: Tensor, index: int) -> Tensor:
        start, end = self._length, self._length + len(qkv)
        heads = qkv.view(len(qkv), 3, self._spec.num_heads, -1).permute(1, 2, 0, 3)  # [3, heads, rows, size]
        cosine, sine = self._angles[:, start:end]
        first, second = heads[:2].chunk(2, dim=-1)
        turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
        self._cache[index, 0, 0, :, start:end] = turned[1]
        self._cache[index, 1, 0, :, start:end] = heads[2]
        keys, values = self._cache[index, :, :, :, :end]
        mixed = functional.scaled_dot_product_attention(turned[0][None], keys, values, is_causal=len(qkv) > 1)
        return mixed[0].transpose(0, 1).reshape(len(qkv), -1)
