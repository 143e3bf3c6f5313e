"""Typed, strict reading of `config.json`.

Enters: the JSON object of a checkpoint. Leaves: checked values, or `CheckpointError` (missing or
mistyped) and `UnsupportedModelError` (a setting that changes the maths and is not implemented).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pocketglm.checkpoint.source import Checkpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError

UNSUPPORTED_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "quantization_bit": (None, 0),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "vision_config": (None,),
    "audio_config": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0, 1),
    "n_routed_experts": (None, 0),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "clip_qkv": (None,),
    "qk_layernorm": (None, False),
    "alibi": (None, False),
    "attention_chunk_size": (None,),
    "no_rope_layers": (None,),
    "no_rope_layer_interval": (None, 0),
    "use_mrope": (None, False),
}
"""Settings that would change any decoder, with the values that leave it as it is."""

HINTS: Mapping[str, str] = {
    "quantization_config": "convert the original float checkpoint; PocketGLM quantizes it itself",
    "quantization_bit": "convert the original float16 checkpoint; PocketGLM quantizes it itself",
    "pre_seq_len": "P-tuning prefixes are not supported; convert the base model without the prefix encoder",
}


class Config:
    """One JSON object with typed access. `where` names the file in errors, `scope` the nested object."""

    def __init__(self, values: Mapping[str, Any], where: object, scope: str = "") -> None:
        self.values = values
        self.where = where
        self.scope = scope

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Config:
        single_file = checkpoint.format == "gguf"
        return cls(
            checkpoint.config, checkpoint.path if single_file else checkpoint.directory / "config.json"
        )

    def __contains__(self, name: str) -> bool:
        """Whether the setting is there and not null."""
        return self.values.get(name) is not None

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self._typed(name, int, "an integer", default))

    def number(self, name: str, default: float | None = None) -> float:
        value = float(self._typed(name, (int, float), "a number", default))
        if not math.isfinite(value):
            raise self.malformed(name, "a finite number")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        return str(self._typed(name, str, "a string", default))

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, bool):
            raise self.malformed(name, "true or false")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """An integer or a list of them; empty where the setting is absent."""
        value = self.values.get(name)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in found):
            raise self.malformed(name, "an integer or a list of integers")
        return tuple(found)

    def section(self, name: str) -> Config | None:
        """A nested object, or None where it is absent or empty."""
        value = self.values.get(name)
        if not value:
            return None
        if not isinstance(value, Mapping):
            raise self.malformed(name, "an object")
        return Config(value, self.where, f"{self.scope}{name}.")

    def accept(self, name: str, *accepted: object) -> None:
        """Refuse the model unless the setting is absent (null) or one of `accepted`."""
        value = self.values.get(name)
        if value is not None and value not in accepted:
            raise self.unsupported(name, hint=HINTS.get(name))

    def unsupported(self, name: str, hint: str | None = None) -> UnsupportedModelError:
        shown = repr(self.values.get(name))
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return UnsupportedModelError(
            f"the setting {self.scope}{name} = {shown} is not supported", where=self.where, hint=hint
        )

    def malformed(self, name: str, expected: str) -> CheckpointError:
        if name not in self.values:
            return CheckpointError(
                f"the setting {self.scope}{name} is missing, expected {expected}", where=self.where
            )
        found = self.values[name]
        return CheckpointError(
            f"the setting {self.scope}{name} is {found!r}, expected {expected}", where=self.where
        )

    def _typed(self, name: str, kind: Any, expected: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.malformed(name, expected)
        return value


def refuse_unsupported(config: Config) -> None:
    """Refuse settings that no family implements."""
    for name, accepted in UNSUPPORTED_SETTINGS.items():
        config.accept(name, *accepted)
