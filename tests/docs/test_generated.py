"""Generated pages and tables are what the program says today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from docs.markdown import ROOT
from pocketglm.architecture.registry import supported_models
from pocketglm.cli.main import app


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(generate: ModuleType) -> None:
    stale = [path for path, text in generate.rendered().items() if Path(path).read_text("utf-8") != text]
    names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    assert not stale, f"run python docs/generate.py: {names} differ"


def test_the_readme_names_every_model() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for model in supported_models():
        assert ", ".join(model.examples) in readme
        assert ", ".join(model.refused) in readme


def test_the_command_page_names_every_command_and_option(generate: ModuleType) -> None:
    page = generate.cli_page()
    for command in app.registered_commands:
        assert f"## {command.name}\n" in page
    for option in ("`-o, --output DIR`", "`--load FILE`", "`--max-tokens N`", "`--json`"):
        assert option in page
