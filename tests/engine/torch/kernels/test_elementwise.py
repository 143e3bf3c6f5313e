"""Norms, residuals and activations against plain PyTorch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.contract_specs import SPECS
from pocketglm.engine.torch import plain
from pocketglm.engine.torch.weights import DeviceNorm

ERROR = 2e-6
ROWS = 3


def rows_of(size: int, device: torch.device, seed: int = 0) -> torch.Tensor:
    return torch.randn(ROWS, size, generator=torch.Generator().manual_seed(seed)).to(device) + 0.3


def norm_of(size: int, device: torch.device, *, bias: bool) -> DeviceNorm:
    return DeviceNorm(rows_of(size, device, 1)[0], rows_of(size, device, 2)[0] if bias else None)


@pytest.mark.parametrize("size", [60, 64, 2049])
@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_norms(device: torch.device, kind: str, size: int) -> None:
    from pocketglm.engine.torch.kernels import elementwise

    spec = replace(SPECS["plain"], norm=kind)
    weights = norm_of(size, device, bias=kind == "layernorm")
    for scale in (1e-9, 1.0, 1e9):
        x = scale * rows_of(size, device)
        found, expected = elementwise.norm(spec, x, weights), plain.norm(spec, x, weights)
        torch.testing.assert_close(found, expected, rtol=ERROR * 10, atol=ERROR)


@pytest.mark.parametrize("is_last", [False, True], ids=["", "last"])
@pytest.mark.parametrize("name", ["plain", "prefix_2d_alpha_layernorm_gelu", "sandwich"])
def test_adds_what_a_part_changed(device: torch.device, name: str, is_last: bool) -> None:
    from pocketglm.engine.torch.kernels import elementwise

    spec, size = SPECS[name], 172
    has_bias = spec.norm == "layernorm"
    post = norm_of(size, device, bias=has_bias) if spec.residual == "sandwich" else None
    following = None if is_last else norm_of(size, device, bias=has_bias)
    states = [rows_of(size, device, seed) for seed in (3, 4, 5)]
    found = elementwise.residual_norm(spec, *states, post, following)
    expected = plain.residual_norm(spec, *states, post, following)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=ERROR * 5)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # NumPy's, in the interpreter
@pytest.mark.parametrize("size", [96, 1025])
@pytest.mark.parametrize("mlp", ["gated_silu", "gelu_tanh"])
def test_activates(device: torch.device, mlp: str, size: int) -> None:
    from pocketglm.engine.torch.kernels import elementwise

    spec = replace(SPECS["plain"], mlp=mlp, intermediate_size=size)
    x = 4 * rows_of(2 * size if spec.gated else size, device)
    x[0, :4] = torch.tensor([100.0, -100.0, 0.0, 1e-6])
    found = elementwise.activation(spec, x)
    torch.testing.assert_close(found, plain.activation(spec, x), rtol=ERROR, atol=ERROR)
