from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.table import block_shapes, head_shapes
from pocketglm.engine.native import _engine
from pocketglm.engine.native.description import ROLES, describe_block, describe_head, describe_spec
from pocketglm.package.reader import Package

INT4 = FORMATS["int4-g32"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    spec = SPECS["sliding_window"]
    return Package.open(
        write_package(tmp_path_factory.mktemp("p") / "package", spec, random_tensors(spec), INT4)
    )


@pytest.mark.parametrize("spec_name", SPECS)
def test_every_tensor_has_a_role(spec_name: str) -> None:
    spec = SPECS[spec_name]
    for name, shape in {**block_shapes(spec), **head_shapes(spec)}.items():
        stem, part = name.rsplit(".", 1)
        linear_part = len(shape) == 2 or (part == "bias" and f"{stem}.weight" not in ROLES)
        assert (stem if linear_part else name) in ROLES


def test_windows_are_those_of_the_blocks(package: Package) -> None:
    assert [describe_block(package, index)[2] for index in range(3)] == [0, 5, 5]


def test_offsets_are_those_of_the_manifest(package: Path) -> None:
    path, size, _, tensors = describe_block(package, 0)
    assert Path(path).stat().st_size == size
    found = {tensor[0]: tensor for tensor in tensors}[ROLES["attention.qkv"]]
    entry = package.block(0).entry("attention.qkv")
    assert found[1:4] == (*entry.shape, 4)
    assert found[7:9] == (entry.codes_offset, entry.alpha_offset)


BAD_TENSORS = {
    "outside the file": lambda t: (*t[:7], 1 << 40, *t[8:]),
    "is there twice": None,
    "has 5 bits": lambda t: (*t[:3], 5, *t[4:]),
    "groups of 33": lambda t: (*t[:4], 33, *t[5:]),
    "expected": lambda t: (t[0], t[1] - 1, *t[2:]),
    "no known role": lambda t: (99, *t[1:]),
    "no elements": lambda t: (t[0], 0, *t[2:]),
    "not aligned": lambda t: (*t[:8], t[8] - 1, *t[9:]),
}


@pytest.mark.parametrize("message", BAD_TENSORS)
def test_native_side_checks_tensors_itself(package: Package, message: str) -> None:
    """The C interface is used without Python too: it takes no description on trust."""
    spec, (path, size, window, tensors) = describe_spec(package.spec), describe_block(package, 0)
    index = next(i for i, tensor in enumerate(tensors) if tensor[0] == ROLES["attention.qkv"])
    change = BAD_TENSORS[message]
    bad = [*tensors, tensors[index]] if change is None else list(tensors)
    if change is not None:
        bad[index] = change(tensors[index])
    with pytest.raises(ValueError, match=message):
        _engine.Stage(spec, [(path, size, window, bad)], 1, 1, None, 0)


def test_native_side_misses_tensors(package: Package) -> None:
    path, size, window, tensors = describe_head(package)
    for kept in ([], tensors[:1], tensors[1:]):
        with pytest.raises(ValueError, match="missing"):
            _engine.Head(describe_spec(package.spec), (path, size, window, kept), 1, None, 0)


BAD_SETTINGS = [
    ("num_kv_heads", 3),
    ("hidden_size", 0),
    ("hidden_size", -64),
    ("head_dim", 1 << 30),
    ("norm", 7),
    ("residual", -1),
    ("mlp", 2),
    ("norm_eps", 0.0),
    ("norm_eps", float("nan")),
    ("residual_alpha", float("inf")),
    ("rotary_axes", 3),
    ("rotary_dimensions", 5),
    ("rotary_dimensions", 1000),
    ("frequencies", np.ones(3, np.float32)),
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
def test_native_side_checks_settings_itself(package: Package, name: str, value: object) -> None:
    spec = {**describe_spec(package.spec), name: value}
    with pytest.raises(ValueError, match=r"is|not|unknown|fit"):
        _engine.Stage(spec, [describe_block(package, 0)], 1, 1, None, 0)


def test_native_side_checks_calls_itself(package: Package) -> None:
    stage = _engine.Stage(describe_spec(package.spec), [describe_block(package, 0)], 1, 1, None, 0)
    row, positions = np.ones((1, 64), np.float32), np.zeros((1, 1), np.int32)
    out = np.empty_like(row)
    stage.open(0)
    for segments in ([], [(1, 0, 1, 0)], [(0, 1, 1, 0)], [(0, 0, 1, 5)], [(0, 0, 1, -1)], [(0, 0, 0, 0)]):
        with pytest.raises(ValueError, match=r"sequence|segment|prefix|shape"):
            stage.forward(segments, positions, row, out)
    with pytest.raises(ValueError, match="shape"):
        stage.forward([(0, 0, 1, 0)], np.zeros((2, 1), np.int32), row, out)
    with pytest.raises(ValueError, match="shape"):
        stage.forward([(0, 0, 1, 0)], positions, row[:, :63].copy(), out)
    assert stage.length(0) == 0
