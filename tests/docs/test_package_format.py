"""The page on the package format is enough to read packages: its own reader agrees with ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from docs.markdown import ROOT, blocks
from docs.stand_ins import write_chatglm
from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import dequantized_tensors, random_tensors, write_package
from pocketglm.architecture.spec import ModelSpec, PrefixTokens, RopeScaling, RotarySpec
from pocketglm.architecture.table import block_shapes, head_shapes
from pocketglm.convert import convert
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat

PAGE = ROOT / "docs" / "package-format.md"
Read = Callable[[Path], Mapping[str, np.ndarray[Any, Any]]]


@pytest.fixture(scope="module")
def read_package() -> Read:
    """The page's reader, compiled from the page."""
    (block,) = (block for block in blocks(PAGE) if block.language == "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(PAGE), "exec"), names)
    return names["read_package"]  # type: ignore[no-any-return]


def same_tensors(path: Path, found: Mapping[str, np.ndarray[Any, Any]]) -> None:
    with Package.open(path) as package:
        expected = dequantized_tensors(package)
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("weight_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_pages_reader_agrees(
    read_package: Read, tmp_path: Path, spec: ModelSpec, weight_format: WeightFormat
) -> None:
    path = write_package(tmp_path / "package", spec, random_tensors(spec), weight_format)
    same_tensors(path, read_package(path))


def test_more_than_65535_rows(read_package: Read, tmp_path: Path) -> None:
    """The header of such a layer is longer."""
    spec = dataclasses.replace(SPECS["plain"], vocab_size=65536, num_blocks=1)
    path = write_package(tmp_path / "package", spec, random_tensors(spec), WeightFormat(4, 64))
    same_tensors(path, read_package(path))


def test_a_converted_checkpoint(read_package: Read, tmp_path: Path) -> None:
    """bfloat16 embedding, int4 blocks and an int8 head."""
    write_chatglm(tmp_path / "chatglm-6b")
    path = convert(tmp_path / "chatglm-6b", tmp_path / "package")
    same_tensors(path, read_package(path))


def test_every_field_is_described() -> None:
    text = PAGE.read_text("utf-8")
    kinds = (ModelSpec, RotarySpec, RopeScaling, PrefixTokens)
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert not {name for name in names if f"`{name}`" not in text}


def test_every_tensor_is_described() -> None:
    text = PAGE.read_text("utf-8")
    described = set(re.findall(r"`([a-z_.]+)`", text))
    for spec in SPECS.values():
        for name, shape in {**block_shapes(spec), **head_shapes(spec)}.items():
            stem = name.rsplit(".", 1)[0]
            assert {name, stem} & described or len(shape) == 1, name
