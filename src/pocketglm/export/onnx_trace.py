"""From a PyTorch module to ONNX, by torch's tracing exporter.

Enters: a module of `decoder_module.py` and example inputs. Leaves: an ONNX file with dynamic axes, in
which linear layers and norms are placeholders and no weight is held.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.mnn.interface import BLOCK_INPUTS, BLOCK_OUTPUTS, HEAD_INPUTS, HEAD_OUTPUTS
from pocketglm.engine.mnn.runtime import INSTALL_HINT
from pocketglm.errors import MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 17

BLOCK_AXES = {
    "hidden": {0: "rows"},
    "mask": {2: "rows", 3: "columns"},
    "rotation": {2: "rows"},
    "past": {2: "history"},
    "output": {0: "rows"},
    "present": {2: "rows"},
}
HEAD_AXES = {"hidden": {0: "rows"}, "logits": {0: "rows"}}


def trace_block(spec: ModelSpec, path: Path) -> None:
    """Write the block graph of `spec` as ONNX."""
    require_torch()
    import torch

    from pocketglm.export.decoder_module import DecoderBlock

    rows, history = 3, 5  # any sizes do: the axes are dynamic
    rotary = spec.rotary
    inputs = (
        torch.zeros(rows, 1, spec.hidden_size),
        torch.zeros(1, 1, rows, history + rows),
        torch.zeros(2, rotary.axes, rows, rotary.dimensions // rotary.axes // 2),
        torch.zeros(2, spec.num_kv_heads, history, spec.head_dim),
    )
    trace(DecoderBlock(spec), inputs, BLOCK_INPUTS, BLOCK_OUTPUTS, BLOCK_AXES, path)


def trace_head(spec: ModelSpec, path: Path) -> None:
    """Write the head's graph of `spec` as ONNX."""
    require_torch()
    import torch

    from pocketglm.export.decoder_module import DecoderHead

    inputs = (torch.zeros(3, 1, spec.hidden_size),)
    trace(DecoderHead(spec), inputs, HEAD_INPUTS, HEAD_OUTPUTS, HEAD_AXES, path)


def trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    path: Path,
) -> None:
    """Trace `module` with example inputs to an ONNX file."""
    import torch

    from pocketglm.export.decoder_module import DOMAIN

    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter is deprecated in favour of one that cannot carry placeholders.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            custom_opsets={DOMAIN: 1},
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes={name: dict(axes) for name, axes in dynamic_axes.items()},
        )


def require_torch() -> None:
    """Raises `MissingExtraError` where PyTorch or onnx, which its exporter uses, cannot be imported."""
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"graphs are traced with PyTorch and onnx ({error})", hint=INSTALL_HINT
        ) from error
