"""All kernels become machine code for GPUs, at the sizes of ChatGLM-6B, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED_MEMORY = {86: 99 << 10, 90: 227 << 10}
"""What one program may take, by compute capability (CUDA programming guide, technical specifications)."""

MATRIX_KERNELS = {"_matmul", "_attention"}
OTHER_KERNELS = {
    "_matvec",
    "_planes",
    "_half_rows",
    "_norm",
    "_residual_norm",
    "_activation",
    "_rotate_write",
    "_rotate_write-float32",
    "_attention-float32",  # its products keep float32's precision
    "_combine",
}


@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_compiles_for(capability: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: it exists for Linux on x86-64")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(Path(__file__).with_name("compiling.py")), str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    names = {name for name, _, _ in lines}
    assert names == MATRIX_KERNELS | OTHER_KERNELS
    for name, shared, cores in lines:
        assert int(shared) <= SHARED_MEMORY[capability], name
        assert (cores == "tensor-cores") == (name in MATRIX_KERNELS), name
