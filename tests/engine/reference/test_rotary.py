from __future__ import annotations

import math

import numpy as np
import pytest

from pocketglm.architecture.spec import RopeScaling, RotarySpec
from pocketglm.engine.reference.rotary import frequencies, rotate_at


def pairs_of(rotary: RotarySpec) -> list[tuple[int, int, int, int]]:
    """(axis, index of the frequency, first dimension, second dimension) of every pair, by definition."""
    size = rotary.dimensions // rotary.axes
    pairs = []
    for axis in range(rotary.axes):
        for i in range(size // 2):
            first, second = (i, i + size // 2) if rotary.kind == "half" else (2 * i, 2 * i + 1)
            pairs.append((axis, i, axis * size + first, axis * size + second))
    return pairs


@pytest.mark.parametrize("kind", ["half", "interleaved"])
@pytest.mark.parametrize(("dimensions", "axes"), [(8, 1), (16, 1), (12, 2), (16, 2)])
def test_every_pair_turns_by_its_angle(kind: str, dimensions: int, axes: int) -> None:
    rotary = RotarySpec(kind, dimensions, 100.0, axes)  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    positions = generator.integers(0, 50, (axes, 5)).astype(np.int32)
    heads = generator.normal(size=(2, 5, 3, 16)).astype(np.float32)
    expected = heads.astype(np.float64)
    size = dimensions // axes
    for axis, i, first, second in pairs_of(rotary):
        angle = positions[axis] * 100.0 ** (-2 * i / size)
        cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
        expected[..., first] = heads[..., first] * cosine - heads[..., second] * sine
        expected[..., second] = heads[..., second] * cosine + heads[..., first] * sine
    rotate_at(rotary, positions).apply(heads)
    np.testing.assert_allclose(heads, expected, atol=2e-5)


def test_linear_scaling_divides_frequencies() -> None:
    plain = frequencies(RotarySpec("half", 8, 10000.0))
    scaled = frequencies(RotarySpec("half", 8, 10000.0, scaling=RopeScaling("linear", 4.0)))
    np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001], rtol=1e-6)
    np.testing.assert_allclose(scaled, plain / 4, rtol=1e-6)


def test_llama3_scaling_keeps_short_and_stretches_long_wavelengths() -> None:
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    plain = frequencies(RotarySpec("half", 128, 500000.0))
    scaled = frequencies(RotarySpec("half", 128, 500000.0, scaling=scaling))
    wavelengths = 2 * math.pi / plain
    short, long = wavelengths < 8192 / 4, wavelengths > 8192 / 1
    np.testing.assert_allclose(scaled[short], plain[short], rtol=1e-6)
    np.testing.assert_allclose(scaled[long], plain[long] / 8, rtol=1e-6)
    between = ~(short | long)
    assert between.any()
    assert ((plain[between] / 8 < scaled[between]) & (scaled[between] < plain[between])).all()


def test_float16_frequencies_are_rounded() -> None:
    rounded = frequencies(RotarySpec("half", 128, 10000.0, axes=2, frequency_dtype="float16"))
    exact = frequencies(RotarySpec("half", 128, 10000.0, axes=2))
    assert rounded.shape == (32,)
    assert rounded.dtype == np.float32
    assert (rounded == exact.astype(np.float16)).all()
    assert (rounded != exact).any()
