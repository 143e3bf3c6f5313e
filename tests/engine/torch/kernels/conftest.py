"""Where kernels are tested: on a GPU where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device of the kernels; skips where Triton is absent."""
    pytest.importorskip("triton", reason="Triton is not installed: it exists for Linux on x86-64")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
