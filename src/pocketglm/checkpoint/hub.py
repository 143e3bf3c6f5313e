"""Models named on a hub, fetched by the hub's own client library (extra `hub`).

Enters: a name. Leaves: a local directory. The clients resume broken downloads, check what they fetch
and keep it in their cache, so a second conversion finds it there.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketglm.errors import CheckpointError, MissingExtraError

_NAME = re.compile(r"(?:(hf|ms):)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")

SIDE_FILES = ("*.json", "*.model", "*.jinja", "*.tiktoken", "merges.txt", "vocab.txt", "tokenizer*.txt")
WEIGHT_FILES = (("model.safetensors", "model-*.safetensors"), ("*.safetensors",), ("pytorch_model*.bin",))
"""Best first. Some repositories hold the same weights twice, under a second name or in torch's format."""


@dataclass(frozen=True)
class HubName:
    """A model on Hugging Face (`hf`) or ModelScope (`ms`)."""

    hub: Literal["hf", "ms"]
    name: str


def parse_hub_name(text: str) -> HubName | None:
    """`org/name`, `hf:org/name` or `ms:org/name`; None for anything else."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    return HubName("ms" if match[1] == "ms" else "hf", match[2])


def download(model: HubName) -> Path:
    """Fetch configuration, tokenizer and weights; returns the directory that holds them."""
    try:
        return _from_modelscope(model.name) if model.hub == "ms" else _from_huggingface(model.name)
    except ImportError as error:
        raise MissingExtraError(
            f"downloading a model needs {error.name or 'a hub client'}, which is not installed",
            hint='pip install "pocketglm[hub]", or download the model yourself and give its directory',
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the clients raise dozens of types: network, HTTP, disk, permissions
        raise CheckpointError(
            f"the download failed: {error}",
            where=f"{model.hub}:{model.name}",
            hint="check the name and the network, then run the command again: it resumes",
        ) from error


def wanted_files(names: Sequence[str], where: str) -> list[str]:
    """Top-level files to fetch: side files, and the weights in one format (safetensors if there)."""
    top = [name for name in names if "/" not in name]
    for patterns in WEIGHT_FILES:
        if weights := _matching(top, patterns):
            return _matching(top, SIDE_FILES) + weights
    raise CheckpointError(
        "has no weights that can be read: expected *.safetensors or pytorch_model*.bin",
        where=where,
        hint="for GGUF, download the one file you want and give its path",
    )


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _from_huggingface(name: str) -> Path:
    import huggingface_hub

    try:
        files = huggingface_hub.HfApi().list_repo_files(name)
    except Exception as unreachable:
        try:  # without a network, a copy that was fetched before will do
            return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
        except Exception:
            raise unreachable from None
    wanted = wanted_files(files, f"hf:{name}")
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))


def _from_modelscope(name: str) -> Path:
    from modelscope.hub.api import HubApi
    from modelscope.hub.snapshot_download import snapshot_download

    files = [entry["Path"] for entry in HubApi().get_model_files(name, recursive=True)]
    wanted = wanted_files(files, f"ms:{name}")
    return Path(snapshot_download(name, allow_file_pattern=wanted))
