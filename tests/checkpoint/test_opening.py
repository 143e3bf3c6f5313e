"""From a path or a name to a checkpoint: what is chosen, and what is said when nothing fits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from checkpoint.gguf_files import write_gguf
from pocketglm.checkpoint import open_checkpoint, opening
from pocketglm.checkpoint.hub import HubName
from pocketglm.errors import CheckpointError


def tensor(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full(2, value, np.float32)}


def safetensors(directory: Path, name: str = "model.safetensors", value: float = 1) -> Path:
    save_file(tensor(value), directory / name)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory / name


def torch_file(directory: Path, name: str = "pytorch_model.bin", value: float = 2) -> Path:
    torch.save({"w": torch.full((2,), value)}, directory / name)
    (directory / "config.json").write_text("{}")
    return directory / name


def index(directory: Path, name: str, weight_map: dict[str, Any]) -> Path:
    (directory / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    (directory / "config.json").write_text("{}")
    return directory / name


def value_of(path: Path | str) -> float:
    with open_checkpoint(path) as checkpoint:
        return float(checkpoint.read("w")[0])


def test_safetensors_come_before_torch_files(tmp_path: Path) -> None:
    safetensors(tmp_path)
    torch_file(tmp_path)
    assert value_of(tmp_path) == 1
    assert value_of(tmp_path / "pytorch_model.bin") == 2


def test_sharded_safetensors_come_before_torch_files(tmp_path: Path) -> None:
    torch_file(tmp_path)
    safetensors(tmp_path, "model-00001-of-00001.safetensors", 3)
    index(tmp_path, "model.safetensors.index.json", {"w": "model-00001-of-00001.safetensors"})
    assert value_of(tmp_path) == 3
    assert value_of(tmp_path / "model.safetensors.index.json") == 3


def test_torch_files_come_before_gguf(tmp_path: Path) -> None:
    torch_file(tmp_path)
    write_gguf(tmp_path / "m.gguf")
    assert value_of(tmp_path) == 2


def test_the_only_file_of_a_directory_may_have_any_name(tmp_path: Path) -> None:
    safetensors(tmp_path, "weights.safetensors", 4)
    assert value_of(tmp_path) == 4


@pytest.mark.parametrize("writer", [safetensors, torch_file])
def test_a_file_is_known_by_its_contents(tmp_path: Path, writer: Callable[[Path, str], Path]) -> None:
    assert value_of(writer(tmp_path, "download")) in (1, 2)


def test_gguf_is_known_by_its_contents(tmp_path: Path) -> None:
    write_gguf(tmp_path / "download")
    with open_checkpoint(tmp_path / "download") as checkpoint:
        assert checkpoint.format == "gguf"


def test_a_local_path_comes_before_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    safetensors(tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    assert value_of("org/model") == 1


@pytest.mark.parametrize("name", ["org/model", "hf:org/model", "ms:org/model"])
def test_what_is_not_local_is_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    safetensors(tmp_path)
    asked: list[HubName] = []

    def download(model: HubName) -> Path:
        asked.append(model)
        return tmp_path

    monkeypatch.setattr(opening, "download", download)
    assert value_of(name) == 1
    assert asked == [HubName("ms" if name.startswith("ms") else "hf", "org/model")]


@pytest.mark.parametrize(
    "name", ["nothing", "a/b/c", "./org/model", "/org/model", "xx:org/model", "org/", ""]
)
def test_other_names_are_not_asked_of_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such file or directory|has no weights"):
        open_checkpoint(name)


def test_an_empty_directory_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no weights: expected model\.safetensors or pytorch_model\.bin"
    ):
        open_checkpoint(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    safetensors(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": 1,}'])
def test_a_bad_config_is_an_error(tmp_path: Path, text: str) -> None:
    safetensors(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="JSON") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")


def test_shards_without_an_index_are_an_error(tmp_path: Path) -> None:
    torch_file(tmp_path, "pytorch_model-00001-of-00002.bin")
    with pytest.raises(
        CheckpointError, match=r"has shards \(pytorch_model-00001-of-00002\.bin, \.\.\.\) but no index"
    ):
        open_checkpoint(tmp_path)


def test_several_files_are_an_error(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match=r"several weight files: a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    safetensors(tmp_path, "model-00001-of-00002.safetensors")
    shards = {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}
    index(tmp_path, "model.safetensors.index.json", shards)
    with pytest.raises(
        CheckpointError, match=r"names the shard model-00002-of-00002\.safetensors \(for tensor v\)"
    ):
        open_checkpoint(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    safetensors(tmp_path, "a.safetensors")
    index(tmp_path, "model.safetensors.index.json", {"w": "a.safetensors", "v": "a.safetensors"})
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors: tensor v is missing: model\.safetensors\.index\.json"
    ):
        open_checkpoint(tmp_path)


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    path = safetensors(tmp_path, "a.safetensors")
    index(tmp_path, "model.safetensors.index.json", {"w": "a.safetensors"})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors: tensor w is cut short: expected 8 bytes, found 5"
    ):
        open_checkpoint(tmp_path)


def test_reading_checkpoints_needs_neither_torch_nor_the_hub_clients(golden: Path) -> None:
    program = (
        "import sys, pocketglm.checkpoint as c\n"
        "c.open_checkpoint(sys.argv[1]).close()\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'modelscope', 'gguf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(golden / "chatglm2-tiny")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
