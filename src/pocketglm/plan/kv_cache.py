"""What a KV cache holds and how much it takes. Enters: a spec and a type. Leaves: bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pocketglm.architecture.spec import ModelSpec

KVType = Literal["float32", "float16", "int8"]
"""What an engine may keep the keys and values of past positions as."""

KV_TYPES: tuple[KVType, ...] = get_args(KVType)
KV_BYTES: Mapping[KVType, float] = {"float32": 4.0, "float16": 2.0, "int8": 1.0}


def kv_bytes_per_token(spec: ModelSpec, kv: KVType) -> int:
    """Bytes of keys and values of one position in all blocks; int8 has a float32 scale for each row."""
    row = spec.head_dim * KV_BYTES[kv] + (4 if kv == "int8" else 0)
    return int(2 * spec.num_blocks * spec.num_kv_heads * row)
