"""The matrix products against plain PyTorch, over shapes with tails in every direction and all formats."""

from __future__ import annotations

import pytest
import torch

from engine.contract_specs import FORMATS
from engine.torch.kernels.layers import random_layer
from pocketglm.engine.torch import plain
from pocketglm.quantize.formats import WeightFormat

SHAPES = [(40, 96), (72, 172), (130, 60), (9, 320)]
"""[out, in]: outputs that do not fill a tile, inputs that do not fill a group or an odd number of steps."""

FLOAT32_ERROR = 2e-6
HALF_ERROR = 2e-3
"""Of the largest output: float16 keeps 11 bits of activations and weights."""


def rows_of(count: int, inputs: int, device: torch.device) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count)).to(device)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_multiplies_a_vector_in_float32(
    device: torch.device, shape: tuple[int, int], format_name: str
) -> None:
    from pocketglm.engine.torch.kernels import linear

    layer = random_layer(shape, FORMATS[format_name], device)
    x = rows_of(3, shape[1], device)
    for rows in (1, 3):
        found = linear.matvec(x[:rows], layer) if layer.format.bits < 32 else linear.linear(x[:rows], layer)
        assert error(found, plain.linear(x[:rows], layer)) < FLOAT32_ERROR


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(("shape", "rows"), list(zip(SHAPES, (3, 16, 19, 70), strict=True)), ids=str)
def test_multiplies_rows_in_float16(
    device: torch.device, shape: tuple[int, int], rows: int, format_name: str
) -> None:
    from pocketglm.engine.torch.kernels import linear

    layer = random_layer(shape, FORMATS[format_name], device)
    x = rows_of(rows, shape[1], device)
    assert error(linear.linear(x, layer), plain.linear(x, layer)) < HALF_ERROR


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("splits", [1, 3])
def test_cuts_the_inputs_and_takes_layers_without_bias(
    device: torch.device, bits: int, splits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketglm.engine.torch.kernels import linear

    monkeypatch.setattr(linear, "_splits", lambda tiles, steps, device: splits)
    layer = random_layer((24, 448), WeightFormat(bits), device, bias=False)
    x = rows_of(5, 448, device)
    assert error(linear.matmul(x, layer), plain.linear(x, layer)) < HALF_ERROR


def test_rows_beyond_float16_keep_their_precision(device: torch.device) -> None:
    from pocketglm.engine.torch.kernels import linear

    layer = random_layer((32, 128), WeightFormat(4), device, bias=False)
    x = rows_of(4, 128, device)
    x *= torch.tensor([1e8, 1e-8, 0.0, 1.0], device=device)[:, None]
    found, expected = linear.matmul(x, layer), plain.linear(x, layer)
    for row in (0, 1, 3):
        assert error(found[row], expected[row]) < HALF_ERROR
    assert not found[2].any()


def test_halves_that_are_no_whole_words_are_multiplied_as_tiles(device: torch.device) -> None:
    from pocketglm.engine.torch.kernels import linear

    layer = random_layer((9, 33), WeightFormat(16), device)
    x = rows_of(1, 33, device)
    assert error(linear.linear(x, layer), plain.linear(x, layer)) < HALF_ERROR


def test_takes_rows_that_lie_apart(device: torch.device) -> None:
    """A part of a wider tensor, as attention leaves it."""
    from pocketglm.engine.torch.kernels import linear

    layer = random_layer((16, 64), WeightFormat(8), device)
    for rows in (1, 4):
        x = rows_of(rows, 128, device)[:, :64]
        assert error(linear.linear(x, layer), plain.linear(x, layer)) < HALF_ERROR


def test_work_is_split_until_all_processors_are_busy() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from pocketglm.engine.torch.kernels import linear

    cpu = torch.device("cpu")  # passes for 8 processors
    assert [linear._splits(tiles, 64, cpu) for tiles in (1, 3, 8, 16, 500)] == [16, 6, 2, 1, 1]
    assert linear._splits(1, 10, cpu) == 2  # at least four steps each
