"""MNN graphs for packages made in tests; a test that needs them is skipped where MNN is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest


def need_mnn() -> None:
    """Skip the test where the `mnn` extra is not installed: MNN has no wheel for every Python."""
    for module in ("MNN", "onnx", "torch"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install 'pocketglm[mnn]')")


def add_graphs(package: Path) -> None:
    """Export MNN graphs into the package."""
    need_mnn()
    from pocketglm.export.mnn import export_graphs

    export_graphs(package)
