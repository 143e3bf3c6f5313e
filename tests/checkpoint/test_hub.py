"""Hub names, the choice of files, and what the client libraries are asked for (they are replaced here)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pocketglm.checkpoint.hub import HubName, download, parse_hub_name, wanted_files
from pocketglm.errors import CheckpointError, MissingExtraError

FILES = [
    "config.json",
    "tokenizer.json",
    "README.md",
    "tokenizer.model",
    "ice_text.model",
    "modeling_chatglm.py",
]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
TORCH = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]
SIDE = {"config.json", "tokenizer.json", "tokenizer.model", "ice_text.model"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("THUDM/chatglm-6b", HubName("hf", "THUDM/chatglm-6b")),
        ("hf:Qwen/Qwen2.5-0.5B", HubName("hf", "Qwen/Qwen2.5-0.5B")),
        ("ms:ZhipuAI/chatglm3-6b", HubName("ms", "ZhipuAI/chatglm3-6b")),
        ("chatglm", None),
        ("a/b/c", None),
        ("../model", None),
        ("/model", None),
        ("org/../x", None),
        ("hf:", None),
    ],
)
def test_names(text: str, expected: HubName | None) -> None:
    assert parse_hub_name(text) == expected


def test_safetensors_are_preferred_and_programs_left_out() -> None:
    consolidated = ["consolidated.safetensors", "original/model.safetensors"]
    found = wanted_files([*FILES, *SHARDS, *TORCH, *consolidated, "model.safetensors.index.json"], "x")
    assert set(found) == {*SIDE, *SHARDS, "model.safetensors.index.json", "pytorch_model.bin.index.json"}


def test_torch_files_where_there_is_nothing_else() -> None:
    assert set(wanted_files([*FILES, *TORCH, "optimizer.bin"], "x")) == {*SIDE, *TORCH}


def test_a_repository_without_weights_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"hf:x: has no weights that can be read"):
        wanted_files([*FILES, "model.gguf", "flax_model.msgpack"], "hf:x")


def module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Stand in for an installed client library."""
    replaced = ModuleType(name)
    replaced.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, replaced)


class HuggingFace:
    """Records what `huggingface_hub` is asked for."""

    def __init__(self, *, online: bool, cached: bool = True) -> None:
        self.online, self.cached = online, cached
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def list_repo_files(self, name: str) -> list[str]:
        if not self.online:
            raise ConnectionError("no network")
        return [*FILES, *SHARDS]

    def snapshot_download(self, name: str, **options: Any) -> str:
        if options.get("local_files_only") and not self.cached:
            raise FileNotFoundError("not in the cache")
        self.asked.append((name, options))
        return "/cache/model"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module(monkeypatch, "huggingface_hub", HfApi=lambda: self, snapshot_download=self.snapshot_download)


def test_hugging_face_is_asked_for_the_wanted_files(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HuggingFace(online=True)
    hub.install(monkeypatch)
    assert download(HubName("hf", "org/model")) == Path("/cache/model")
    ((name, options),) = hub.asked
    assert name == "org/model"
    assert set(options.pop("allow_patterns")) == {*SIDE, *SHARDS}
    assert not options


def test_without_a_network_the_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HuggingFace(online=False)
    hub.install(monkeypatch)
    assert download(HubName("hf", "org/model")) == Path("/cache/model")
    assert hub.asked == [("org/model", {"local_files_only": True})]


def test_a_failed_download_tells_the_first_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    HuggingFace(online=False, cached=False).install(monkeypatch)
    with pytest.raises(CheckpointError, match="hf:org/model: the download failed: no network") as caught:
        download(HubName("hf", "org/model"))
    assert "resumes" in str(caught.value.hint)


def test_modelscope_is_asked_for_the_wanted_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class HubApi:
        def get_model_files(self, name: str, recursive: bool) -> list[dict[str, Any]]:
            assert recursive
            return [{"Path": file, "Size": 1} for file in [*FILES, *TORCH]]

    def snapshot_download(name: str, allow_file_pattern: list[str]) -> str:
        asked.append((name, set(allow_file_pattern)))
        return "/cache/ms"

    module(monkeypatch, "modelscope")
    module(monkeypatch, "modelscope.hub")
    module(monkeypatch, "modelscope.hub.api", HubApi=HubApi)
    module(monkeypatch, "modelscope.hub.snapshot_download", snapshot_download=snapshot_download)
    assert download(HubName("ms", "org/model")) == Path("/cache/ms")
    assert asked == [("org/model", {*SIDE, *TORCH})]


@pytest.mark.parametrize(("hub", "library"), [("hf", "huggingface_hub"), ("ms", "modelscope")])
def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch, hub: Any, library: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # an import of it fails as if it were not installed
    with pytest.raises(MissingExtraError, match=library) as caught:
        download(HubName(hub, "org/model"))
    assert 'pip install "pocketglm[hub]"' in str(caught.value.hint)
