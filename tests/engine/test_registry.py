from __future__ import annotations

import subprocess
import sys

import pytest

from pocketglm.engine.registry import default_engine, engine_names, get_engine
from pocketglm.errors import InputError


@pytest.mark.parametrize("name", engine_names())
def test_every_listed_engine_is_there(name: str) -> None:
    assert get_engine(name).name == name


def test_default_engine_is_listed() -> None:
    assert default_engine() in engine_names()


def test_unknown_engine_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="unknown engine 'warp'") as error:
        get_engine("warp")
    assert error.value.hint is not None
    assert "reference" in error.value.hint


def test_registry_imports_no_engine() -> None:
    code = (
        "import sys, pocketglm.engine.registry; "
        "sys.exit(any(m.startswith(('pocketglm.engine.reference.', 'torch')) for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
