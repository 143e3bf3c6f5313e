"""The plain operations against NumPy's: the package's own reader, and the reference engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.contract_specs import FORMATS, SPECS
from engine.contract_suite import OpenPackage
from pocketglm.engine.reference.attention import Visibility, attention
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.engine.torch import plain
from pocketglm.engine.torch.weights import load_weights
from pocketglm.package.layout import HEAD_FILE, block_file

CPU = torch.device("cpu")


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("spec_name", ["plain", "llama3_scaling_odd_sizes"])
def test_dequantizes_to_the_readers_bits(open_package: OpenPackage, spec_name: str, format_name: str) -> None:
    package = open_package(spec_name, format_name)
    for name, file in ((block_file(0), package.block(0)), (HEAD_FILE, package.head())):
        weights = load_weights(package, name, CPU)
        assert set(weights.linears) == set(file.linears)
        for linear, layer in weights.linears.items():
            found = plain.dequantize(layer, 3, layer.shape[0] - 2).numpy()
            np.testing.assert_array_equal(found, file.linear(linear).dequantize()[3:-2])


@pytest.mark.parametrize("format_name", FORMATS)
def test_tiles_do_not_matter(
    open_package: OpenPackage, format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product in tiles of 7 rows, a last one of fewer among them, with a bias."""
    package = open_package("linear_scaling_all_biases", format_name)
    layer = load_weights(package, block_file(1), CPU).linears["attention.qkv"]
    stored = package.block(1).linear("attention.qkv")
    x = np.random.default_rng(0).normal(size=(5, layer.shape[1])).astype(np.float32)
    monkeypatch.setitem(plain.TILE_BYTES, "cpu", 4 * layer.shape[1] * 7)
    assert plain.tile_rows(layer.shape, "cpu") == 7
    expected = x @ stored.dequantize().T + stored.bias
    np.testing.assert_allclose(plain.linear(torch.from_numpy(x), layer).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("name", SPECS)
def test_rotates_like_the_reference(name: str) -> None:
    rotary, head_dim = SPECS[name].rotary, SPECS[name].head_dim
    generator = np.random.default_rng(1)
    positions = generator.integers(0, 5000, (rotary.axes, 6)).astype(np.int32)
    heads = generator.normal(size=(6, 3, head_dim)).astype(np.float32)
    rotation = rotate_at(rotary, positions)
    expected = heads.copy()
    rotation.apply(expected)
    tables = (torch.from_numpy(table.reshape(6, -1)) for table in (rotation.cosine, rotation.sine))
    found = torch.from_numpy(heads.copy())
    plain.rotate(rotary, found, *tables)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(
    ("start", "rows", "prefix"), [(0, 20, 0), (0, 20, 7), (13, 1, 0), (13, 1, 9), (9, 6, 4)]
)
@pytest.mark.parametrize("rows_at_once", [1, 4, 256])
def test_attends_like_the_reference(
    window: int | None, start: int, rows: int, prefix: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "ROWS_AT_ONCE", rows_at_once)
    generator = np.random.default_rng(2)
    queries = generator.normal(size=(rows, 6, 10)).astype(np.float32)
    keys, values = (generator.normal(size=(3, start + rows, 10)).astype(np.float32) for _ in range(2))
    visibility = Visibility(start, prefix, window)
    found = plain.attention(*(torch.from_numpy(a) for a in (queries, keys, values)), visibility)
    np.testing.assert_allclose(found.numpy(), attention(queries, keys, values, visibility), atol=1e-6)


def test_norms_survive_large_and_tiny_values() -> None:
    spec = replace(SPECS["plain"], norm_eps=1e-6)
    for scale in (1e-12, 1.0, 1e9):
        x = scale * torch.linspace(-1, 1, 64)[None]
        found = plain.rms_norm(x, torch.ones(64), spec.norm_eps)
        expected = x.double() / (x.double().square().mean() + spec.norm_eps).sqrt()
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-12)
