"""Source models: safetensors, PyTorch and GGUF files, or a model's name on a hub."""

from __future__ import annotations

from pocketglm.checkpoint.opening import open_checkpoint
from pocketglm.checkpoint.source import Checkpoint, TensorInfo

__all__ = ["Checkpoint", "TensorInfo", "open_checkpoint"]
