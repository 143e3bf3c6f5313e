"""Damaged and hostile packages: what Python's reader refuses, the executable refuses, with the same words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executable.engine_process import EngineProcess
from package.changed_tree import change_somewhere
from package.packages import rewrite_manifest, write_package
from package.test_manifest import DAMAGED
from pocketglm.errors import PackageError
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat

Json = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(tmp_path / "p", WeightFormat(4, 32))
    return tmp_path / "p"


def refusal(engine: EngineProcess, package: Path) -> str:
    event = engine.ask(command="load", package=str(package))
    assert (event["event"], event["code"]) == ("error", "package"), event
    return str(event["message"])


def as_json(message: str) -> str:
    """Python's message with values as JSON writes them."""
    return message.replace("'", '"').replace("is True", "is true")


@pytest.mark.parametrize(("change", "message"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED])
def test_damaged_manifest(
    engine: EngineProcess, package: Path, change: Callable[[Json], None], message: str
) -> None:
    data = json.loads((package / "manifest.json").read_text("utf-8"))
    change(data)
    rewrite_manifest(package, data)
    found = refusal(engine, package)
    assert as_json(message) in found
    assert str(package / "manifest.json") in found


@pytest.mark.parametrize(
    ("name", "message"),
    [(None, "lists a tensor twice"), ("attention.extra", "does not have: attention.extra")],
)
def test_a_tensor_too_many(engine: EngineProcess, package: Path, name: str | None, message: str) -> None:
    data = json.loads((package / "manifest.json").read_text("utf-8"))
    tensors = data["weights"]["block_00.mnn.weight"]
    tensors.append({**tensors[0], **({} if name is None else {"name": name})})
    rewrite_manifest(package, data)
    assert message in refusal(engine, package)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": 1e999}', b'{"format":"x","format":"x"}'],
)
def test_not_a_manifest(engine: EngineProcess, package: Path, text: bytes) -> None:
    (package / "manifest.json").write_bytes(text)
    assert "manifest.json: not" in refusal(engine, package)


def test_a_manifest_too_large(engine: EngineProcess, package: Path) -> None:
    os.truncate(package / "manifest.json", (64 << 20) + 1)
    assert "larger than" in refusal(engine, package)


def test_a_manifest_of_too_many_values(engine: EngineProcess, package: Path) -> None:
    (package / "manifest.json").write_bytes(b'{"source":[' + b"0," * 3_000_000 + b"0]}")
    assert "more than 2000000 values" in refusal(engine, package)


def test_no_package_at_all(engine: EngineProcess, tmp_path: Path) -> None:
    assert "no package here" in refusal(engine, tmp_path)
    assert "no package here" in refusal(engine, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["block_01.mnn.weight", "embedding.bf16", "generation.json"])
def test_files_that_are_not_as_listed(engine: EngineProcess, package: Path, name: str) -> None:
    os.truncate(package / name, 5)
    assert f"{name}: is 5 bytes, the manifest says" in refusal(engine, package)
    (package / name).unlink()
    assert f"{name}: cannot be read" in refusal(engine, package)
    os.mkfifo(package / name)
    assert f"{name}: is not a regular file" in refusal(engine, package)


def test_a_pipe_in_place_of_the_manifest(engine: EngineProcess, package: Path) -> None:
    (package / "manifest.json").unlink()
    os.mkfifo(package / "manifest.json")
    assert "manifest.json: is not a regular file" in refusal(engine, package)


def test_a_failed_load_leaves_no_model(engine: EngineProcess, package: Path, tmp_path: Path) -> None:
    engine.load(package)
    refusal(engine, tmp_path)
    assert engine.ask(command="stats")["loaded"] is False


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_is_refused_by_both_readers_or_by_none(
    engine: EngineProcess, package: Path, data: Any
) -> None:
    """Random edits of the manifest's tree. What is accepted also runs."""
    path = package / "manifest.json"
    original = path.read_bytes()
    tree = json.loads(original)
    change_somewhere(data, tree, st.integers(-5, 300) | st.integers() | st.floats(allow_nan=False))
    text = json.dumps(tree)
    if "Infinity" in text:  # no JSON
        return
    path.write_text(text)
    try:
        Package.open(package).close()
        sound = True
    except PackageError:
        sound = False
    event = engine.ask(command="load", package=str(package))
    path.write_bytes(original)
    assert (event["event"] == "loaded") == sound, event
    if sound:
        done = engine.generate([1, 2, 3], max_tokens=3)[1]
        assert done["event"] == "done", done
