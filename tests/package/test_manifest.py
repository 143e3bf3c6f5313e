"""Round trips of the manifest, and one test for each way a package can be malformed or hostile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from package.changed_tree import change_somewhere
from package.packages import TINY, rewrite_manifest, write_package
from pocketglm.errors import InputError, IntegrityError, PackageError
from pocketglm.package.manifest import Manifest
from pocketglm.package.reader import Package
from pocketglm.package.verify import verify_package
from pocketglm.quantize.formats import WeightFormat

Json = dict[str, Any]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(tmp_path / "p", WeightFormat(4, 32))
    return tmp_path / "p"


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("group", [32, 64, 128, 0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_round_trip(tmp_path: Path, bits: int, group: int, symmetric: bool) -> None:
    manifest = write_package(tmp_path / "p", WeightFormat(bits, group, symmetric))  # type: ignore[arg-type]
    text = manifest.to_json()
    again = Manifest.from_json(text, "test")
    assert again.to_json() == text
    assert verify_package(tmp_path / "p").tensors == 1 + 2 * 6 + 2


def test_graphs_are_listed_only_where_there_are_some(package: Path) -> None:
    with Package.open(package) as opened:
        plain = opened.manifest
    assert "graphs" not in json.loads(plain.to_json())
    added = replace(plain, graphs={"mnn": {"mnn_version": "3.6.1", "interface": 1}})
    assert Manifest.from_json(added.to_json(), "test") == added


def _set(*keys: Any, value: Any) -> Callable[[Json], None]:
    def change(data: Json) -> None:
        target: Any = data
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return change


def _drop(*keys: Any) -> Callable[[Json], None]:
    def change(data: Json) -> None:
        target: Any = data
        for key in keys[:-1]:
            target = target[key]
        del target[keys[-1]]

    return change


QKV = ("weights", "block_00.mnn.weight", 1)

DAMAGED: list[tuple[str, Callable[[Json], None], str]] = [
    ("other format", _set("format", value="zip"), "not a PocketGLM manifest"),
    ("newer version", _set("version", value=2), "format version is 2"),
    ("version that is no number", _set("version", value=True), "format version is True"),
    ("no model", _drop("model"), "model must be an object"),
    ("unknown model setting", _set("model", "turbo", value=True), "unknown fields: turbo"),
    ("missing model setting", _drop("model", "norm_eps"), "lacks: norm_eps"),
    ("mistyped setting", _set("model", "num_heads", value="4"), "num_heads is '4'"),
    ("boolean as a size", _set("model", "num_heads", value=True), "num_heads is True"),
    ("negative size", _set("model", "hidden_size", value=-1), "hidden_size is -1"),
    ("gigantic size", _set("model", "vocab_size", value=1 << 40), "vocab_size is"),
    ("heads that do not divide", _set("model", "num_kv_heads", value=3), "do not divide"),
    ("unknown norm", _set("model", "norm", value="batchnorm"), "norm is 'batchnorm'"),
    ("too many blocks", _set("model", "num_blocks", value=5000), "num_blocks is 5000"),
    ("more blocks than files", _set("model", "num_blocks", value=3), "do not fit 3 blocks"),
    ("embedding type", _set("embedding", "dtype", value="int4"), "embedding dtype"),
    ("path in a file name", _set("files", "../../etc/passwd", value={}), "not an allowed file name"),
    (
        "file without a hash",
        _set("files", "generation.json", "sha256", value="00"),
        "generation.json has size",
    ),
    ("file without a size", _drop("files", "generation.json", "size"), "generation.json has size"),
    ("unlisted weight file", _drop("files", "block_01.mnn.weight"), "does not list block_01.mnn.weight"),
    ("embedding of another size", _set("files", "embedding.bf16", "size", value=10), "expected 2560"),
    ("tensor missing", _drop(*QKV), "lacks tensor attention.qkv"),
    ("tensor of another shape", _set(*QKV, "shape", value=[64, 31]), "attention.qkv has shape"),
    ("tensor with a strange shape", _set(*QKV, "shape", value=[64, "x"]), "attention.qkv has shape"),
    ("tensor nobody asked for", _set(*QKV, "name", value="attention.extra"), "lacks tensor attention.qkv"),
    ("unaligned codes", _set(*QKV, "offset", value=139), "not on a 64-byte boundary"),
    ("overlap", _set(*QKV, "offset", value=64 - 22), "overlaps"),
    ("beyond the file", _set(*QKV, "offset", value=(1 << 30) - 22), "the file has"),
    ("negative offset", _set(*QKV, "offset", value=-22), "offset -22"),
    ("bias that the model lacks", _set(*QKV, "bias", value=False), "lacks a bias"),
    ("unknown bits", _set(*QKV, "bits", value=3), "bits is 3"),
    ("unknown group", _set(*QKV, "group", value=7), "group is 7"),
    ("mistyped format", _set(*QKV, "bits", value="4"), "malformed weight format"),
    ("weights that are not a list", _set("weights", "head.mnn.weight", value={}), "must be a list"),
    ("graphs that are not an object", _set("graphs", value=[]), "graphs must be an object"),
    ("graphs without a stamp", _set("graphs", value={"mnn": "3.6.1"}), "graphs: mnn must be an object"),
]


@pytest.mark.parametrize(("change", "message"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED])
def test_damaged_manifest(package: Path, change: Callable[[Json], None], message: str) -> None:
    data = json.loads((package / "manifest.json").read_text("utf-8"))
    change(data)
    rewrite_manifest(package, data)
    with pytest.raises(PackageError) as caught:
        Package.open(package)
    assert message in str(caught.value)
    assert "manifest.json" in str(caught.value)


def test_twice_the_same_tensor(package: Path) -> None:
    data = json.loads((package / "manifest.json").read_text("utf-8"))
    data["weights"]["block_00.mnn.weight"].append(data["weights"]["block_00.mnn.weight"][0])
    rewrite_manifest(package, data)
    with pytest.raises(PackageError, match="lists a tensor twice"):
        Package.open(package)


def test_one_tensor_too_many(package: Path) -> None:
    data = json.loads((package / "manifest.json").read_text("utf-8"))
    extra = {**data["weights"]["block_00.mnn.weight"][0], "name": "attention.extra"}
    data["weights"]["block_00.mnn.weight"].append(extra)
    rewrite_manifest(package, data)
    with pytest.raises(PackageError, match=r"the model does not have: attention\.extra"):
        Package.open(package)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": 1e999}'])
def test_not_a_manifest(package: Path, text: bytes) -> None:
    (package / "manifest.json").write_bytes(text)
    with pytest.raises(PackageError, match=r"manifest\.json"):
        Package.open(package)


def test_no_package_at_all(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no package here"):
        Package.open(tmp_path)


def test_unfinished_package_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "p.partial").mkdir()
    with pytest.raises(PackageError) as caught:
        Package.open(tmp_path / "p")
    assert caught.value.hint is not None
    assert "--resume" in caught.value.hint


def test_truncated_weight_file(package: Path) -> None:
    os.truncate(package / "block_01.mnn.weight", 100)
    with pytest.raises(IntegrityError, match=r"block_01\.mnn\.weight: is 100 bytes"):
        Package.open(package)


def test_missing_weight_file(package: Path) -> None:
    (package / "head.mnn.weight").unlink()
    with pytest.raises(PackageError, match=r"head\.mnn\.weight: cannot be read"):
        Package.open(package)


def test_a_pipe_in_place_of_a_file(package: Path) -> None:
    (package / "head.mnn.weight").unlink()
    os.mkfifo(package / "head.mnn.weight")
    with pytest.raises(PackageError, match="not a regular file"):
        Package.open(package)


@pytest.mark.parametrize("name", ["block_00.mnn.weight", "embedding.bf16", "head.mnn.weight"])
def test_flipped_bit(package: Path, name: str) -> None:
    data = bytearray((package / name).read_bytes())
    data[len(data) // 2] ^= 1
    (package / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{name}: its SHA-256 differs"):
        verify_package(package)


def test_changed_small_file_is_noticed_when_read(package: Path) -> None:
    (package / "generation.json").write_bytes(b'{"eos_token_ids": [3]}')
    with Package.open(package) as opened, pytest.raises(IntegrityError, match=r"generation\.json"):
        opened.json("generation.json")


def _rehash(package: Path, name: str) -> None:
    """What an attacker would do after changing a file."""
    import hashlib

    data = json.loads((package / "manifest.json").read_text("utf-8"))
    data["files"][name]["sha256"] = hashlib.sha256((package / name).read_bytes()).hexdigest()
    rewrite_manifest(package, data)


@pytest.mark.parametrize(
    ("tensor", "offset", "value", "message"),
    [
        ("attention.qkv", 0, b"\x03", "MNN header of attention.qkv"),
        ("attention.qkv", 22 + 64 * 16, b"\x00\x7c", "attention.qkv holds values that are not finite"),
        ("mlp.down", 22 + 31, b"\x00", "padding codes of mlp.down"),
        ("input_norm.weight", 0, b"\x00\x00\xc0\x7f", "input_norm.weight holds values"),
    ],
)
def test_wrong_contents_with_a_right_hash(
    package: Path, tensor: str, offset: int, value: bytes, message: str
) -> None:
    name = "block_00.mnn.weight"
    manifest = Manifest.from_json((package / "manifest.json").read_text("utf-8"), "test")
    start = next(entry.offset for entry in manifest.weights[name] if entry.name == tensor) + offset
    data = bytearray((package / name).read_bytes())
    data[start : start + len(value)] = value
    (package / name).write_bytes(data)
    _rehash(package, name)
    with pytest.raises(PackageError, match=message):
        verify_package(package)


@pytest.mark.parametrize("token", [-1, TINY.vocab_size, 1 << 40])
def test_token_outside_the_vocabulary(package: Path, token: int) -> None:
    with Package.open(package) as opened, pytest.raises(InputError, match="outside the vocabulary"):
        opened.embedding_rows([0, token])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_a_manifest_gives_a_clear_error_or_a_sound_package(package: Path, data: Any) -> None:
    """Random edits of the JSON tree: never anything but `PackageError`."""
    tree = json.loads((package / "manifest.json").read_text("utf-8"))
    change_somewhere(data, tree)
    try:
        manifest = Manifest.from_json(json.dumps(tree), "test")
    except PackageError:
        return
    assert all(np.prod(entry.shape) >= 0 for entries in manifest.weights.values() for entry in entries)
