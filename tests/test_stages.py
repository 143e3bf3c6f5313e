"""A stage imports only itself, the stages to its left, and the error tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pocketglm

ROOT = Path(pocketglm.__file__).parent
STAGES = (
    "checkpoint",
    "architecture",
    "quantize",
    "package",
    "plan",
    "engine",
    "generate",
    "serve",
    "convert",
    "export",
    "cli",
)
RUNNING = {"package", "plan", "engine", "generate", "serve"}
CONVERTING = {"checkpoint", "convert", "export"}
OWN_LIBRARY = {("engine", "mnn"): "MNN", ("engine", "torch"): "torch"}
"""An engine may import the library it is made of."""
HEAVY = {"torch", "transformers", "onnx", "gguf", "sentencepiece", "safetensors", "tiktoken", "MNN"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def stage_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "pocketglm" and len(parts) > 1 and parts[1] in STAGES else None


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if parts[0] not in STAGES:
        return
    allowed = STAGES[: STAGES.index(parts[0]) + 1]
    for module in imported(path):
        stage = stage_of(module)
        assert stage is None or stage in allowed, f"{'/'.join(parts)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_running_half_needs_no_converter(path: Path) -> None:
    """Whoever only runs models never imports the converter or its libraries."""
    parts = path.relative_to(ROOT).parts
    if parts[0] not in RUNNING:
        return
    for module in imported(path):
        assert stage_of(module) not in CONVERTING, f"{'/'.join(parts)} imports {module}"
        library = module.split(".")[0]
        if library != OWN_LIBRARY.get(parts[:2]):
            assert library not in HEAVY, f"{'/'.join(parts)} imports {module}"


def test_every_folder_is_a_stage() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(STAGES)
