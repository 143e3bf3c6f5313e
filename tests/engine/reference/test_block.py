"""`block_forward` as the converter uses it: two paths at once, weights behind callables."""

from __future__ import annotations

import numpy as np
import pytest

from engine.contract_specs import SPECS
from engine.tiny_packages import random_tensors
from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Float32
from pocketglm.engine.reference.block import Linear, Vector, block_forward, prompt_attend
from pocketglm.engine.reference.rotary import rotate_at

ROWS = 9


def callables(spec: ModelSpec, seed: int) -> tuple[Linear, Vector]:
    tensors = random_tensors(spec, seed)

    def linear(name: str, x: Float32) -> Float32:
        y: Float32 = x @ tensors[f"block.1.{name}.weight"].T
        return y + tensors.get(f"block.1.{name}.bias", np.float32(0))

    return linear, lambda name: tensors[f"block.1.{name}"]


@pytest.mark.parametrize("name", SPECS)
def test_two_paths_stay_apart(name: str) -> None:
    spec = SPECS[name]
    prefix = 4 if spec.prefix_tokens else 0
    positions = np.tile(np.arange(ROWS, dtype=np.int32), (spec.position_axes, 1))
    rotation = rotate_at(spec.rotary, positions)
    hidden = np.random.default_rng(1).normal(size=(2, ROWS, spec.hidden_size)).astype(np.float32)
    (first, vector), (second, _) = callables(spec, 0), callables(spec, 1)

    def both(name: str, x: Float32) -> Float32:
        return np.stack([first(name, x[0]), second(name, x[1])])

    attend = prompt_attend(spec, 1, prefix)
    together = block_forward(spec, hidden, both, vector, rotation, attend)
    assert together.shape == hidden.shape
    assert together.dtype == np.float32
    for path, linear in enumerate((first, second)):
        alone = block_forward(spec, hidden[path], linear, vector, rotation, attend)
        np.testing.assert_allclose(together[path], alone, atol=2e-5)


def test_extreme_activations_stay_finite() -> None:
    spec = SPECS["plain"]
    linear, vector = callables(spec, 0)
    rotation = rotate_at(spec.rotary, np.arange(ROWS, dtype=np.int32)[None])

    def loud(name: str, x: Float32) -> Float32:
        return linear(name, x) * np.float32(1000 if name == "mlp.gate_up" else 1)

    hidden = np.full((ROWS, spec.hidden_size), 50, dtype=np.float32)
    assert np.isfinite(block_forward(spec, hidden, loud, vector, rotation, prompt_attend(spec, 1))).all()
