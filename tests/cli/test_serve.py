"""`pocketglm serve`: what is decided before the server runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from pocketglm.cli.serve import GRAMMAR_BYTES, SERVER_BYTES, memory_for_model
from pocketglm.errors import InputError


def test_a_memory_limit_has_room_for_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPECS["plain"]
    package = write_package(tmp_path / "p", spec, random_tensors(spec), FORMATS["float32"])
    own = SERVER_BYTES + GRAMMAR_BYTES * spec.vocab_size
    assert memory_for_model(package, 300 << 20) == (300 << 20) - own
    assert "are for the server" in capsys.readouterr().err
    assert memory_for_model(package, own + 1) == 1
    with pytest.raises(InputError, match="the server alone takes 16"):
        memory_for_model(package, own)
