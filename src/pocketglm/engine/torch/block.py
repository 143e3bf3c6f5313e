"""One decoder block on a device.

Enters: hidden states of a pass and the block's weights. Leaves: hidden states; keys and values are in the
caches. The mathematics is that of `engine/reference/block.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.torch.operations import Functions, Pass
from pocketglm.engine.torch.weights import DeviceNorm, DeviceWeights


def blocks_forward(
    spec: ModelSpec,
    hidden: Tensor,
    blocks: range,
    weights: Sequence[DeviceWeights],
    functions: Functions,
    rows: Pass,
) -> Tensor:
    """Hidden states float32 [rows, hidden] through the blocks of a stage."""
    first_norms: list[DeviceNorm | None] = [part.norms["input_norm"] for part in weights]
    normed = functions.norm(spec, hidden, weights[0].norms["input_norm"])
    for index, (part, next_norm) in enumerate(zip(weights, [*first_norms[1:], None], strict=True)):
        window = spec.window_of(blocks[index])
        qkv = functions.linear(normed, part.linears["attention.qkv"])
        change = functions.linear(rows.attend(qkv, part, index, window), part.linears["attention.output"])
        hidden, normed = functions.residual_norm(
            spec, hidden, normed, change, part.norms.get("attention_post_norm"), part.norms["mlp_norm"]
        )
        inner = functions.linear(normed, part.linears["mlp.gate_up" if spec.gated else "mlp.up"])
        change = functions.linear(functions.activation(spec, inner), part.linears["mlp.down"])
        hidden, normed = functions.residual_norm(
            spec, hidden, normed, change, part.norms.get("mlp_post_norm"), next_norm
        )
    return hidden
