"""GPUs are looked for only where there may be one; PyTorch is not imported else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pocketglm.engine.torch.gpus import DEVICE_FILES, available_gpus, may_have_gpu

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")


@needs_linux
def test_without_a_device_file_there_is_none(tmp_path: Path) -> None:
    assert not may_have_gpu(tmp_path)
    assert available_gpus(tmp_path) == ()
    (tmp_path / DEVICE_FILES[0]).touch()
    assert may_have_gpu(tmp_path)


@needs_linux
def test_pytorch_is_not_imported_for_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pocketglm.engine.torch.gpus import available_gpus; "
        "available_gpus(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_where_pytorch_finds_no_gpu_there_is_none(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / DEVICE_FILES[0]).touch()
    assert available_gpus(tmp_path) == ()
