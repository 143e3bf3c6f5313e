"""`MNN.llm` in its child process: answers, and every way in which it may fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.contract_specs import SPECS
from engine.mnn.graphs import need_mnn
from engine.tiny_packages import random_tensors, write_package
from generate.tiny_models import write_tiny
from pocketglm.errors import EngineError, InputError
from pocketglm.export.mnn_llm import MnnLlm, export_mnn_llm
from pocketglm.quantize.formats import WeightFormat

IDS = [3, 14, 15, 9]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_mnn()
    folder = tmp_path_factory.mktemp("mnn-llm")
    return export_mnn_llm(write_tiny(folder / "package"), folder / "exported").path


@pytest.fixture
def model(exported: Path) -> Iterator[MnnLlm]:
    with MnnLlm(exported, threads=1) as opened:
        yield opened


def test_one_row_or_all_of_them(exported: Path, model: MnnLlm) -> None:
    last = model.forward(IDS)
    assert last.dtype == np.float32
    assert last.shape == (1, 264)
    with MnnLlm(exported, threads=1, all_logits=True) as other:
        rows = other.forward(IDS)
    assert rows.shape == (4, 264)
    np.testing.assert_allclose(rows[-1:], last, atol=1e-5)


def test_steps_continue_and_reset_forgets(model: MnnLlm) -> None:
    whole = model.forward(IDS)
    model.reset()
    model.forward(IDS[:3])
    np.testing.assert_allclose(model.forward(IDS[3:]), whole, atol=1e-5)
    assert model.forward_seconds > 0
    first = model.generate(IDS, 5)
    assert model.generate(IDS, 5) == first
    assert len(first) <= 5


def test_pieces_of_characters_are_bytes(model: MnnLlm) -> None:
    (ids,) = model.encode(["é你"])
    assert model.decode(ids[:1]) == "é".encode()[:1]
    assert model.decode(ids).decode() == "é你"


def test_memory_and_loading_are_reported(model: MnnLlm) -> None:
    assert 0 < model.memory()["resident_bytes"] <= model.memory()["peak_bytes"]
    assert model.loading["seconds"] > 0


def test_no_tokens(model: MnnLlm) -> None:
    with pytest.raises(InputError, match="no tokens"):
        model.forward([])


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json not found"):
        MnnLlm(tmp_path)


def test_what_mnn_prints_is_in_the_hint(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="cannot load this directory") as error:
        MnnLlm(exported, settings={"llm_model": "missing.mnn"})
    assert "missing.mnn" in str(error.value.hint)
    assert capfd.readouterr() == ("", "")


def test_a_fault_inside_the_child_is_an_error(model: MnnLlm) -> None:
    with pytest.raises(EngineError, match="failed at forward: TypeError"):
        model._exchange("forward", wrong=1)
    assert model.forward(IDS).shape == (1, 264), "the child is still there"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_dies_is_an_error(model: MnnLlm) -> None:
    os.kill(model._process.pid, signal.SIGSEGV)
    with pytest.raises(EngineError, match="ended by signal 11"):
        model.forward(IDS)
    model.close()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_hangs_is_ended(exported: Path) -> None:
    with MnnLlm(exported, threads=1, timeout=10) as model:
        model._timeout = 0.3
        os.kill(model._process.pid, signal.SIGSTOP)
        with pytest.raises(EngineError, match=r"no answer in 0\.3 s"):
            model.forward(IDS)


def test_no_module_is_taken_from_the_directory(tmp_path: Path) -> None:
    """A directory is data: a json.py that came with it is not run."""
    need_mnn()
    spec = SPECS["plain"]
    package = write_package(tmp_path / "package", spec, random_tensors(spec), WeightFormat(32))
    path = export_mnn_llm(package, tmp_path / "exported").path
    for name in ("json", "numpy", "psutil"):
        (path / f"{name}.py").write_text("raise SystemExit('taken from the directory')")
    with MnnLlm(path, threads=1) as model:
        assert model.forward(IDS).shape == (1, spec.vocab_size)
