"""Sessions on disk: token ids and KV cache in one .npz file, bound to one package.

Enters: the states of all stages. Leaves: a file with `format`, `fingerprint` (of the package),
`tokens` int64 [n], and `keys`, `values` [blocks, n, kv_heads, head_dim] of the whole model, so that a
session can be restored under another split of the blocks. Files are untrusted input.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketglm.architecture.spec import ModelSpec
from pocketglm.errors import InputError
from pocketglm.package.writer import partial_of

FORMAT = "pocketglm-session-1"


@dataclass(frozen=True)
class SavedSession:
    """Everything a session is made of. `keys` and `values` are float16 or float32."""

    fingerprint: str
    tokens: tuple[int, ...]
    keys: NDArray[np.floating]
    values: NDArray[np.floating]


def write_session(path: Path, saved: SavedSession) -> None:
    """Write to a temporary name, then rename."""
    partial = partial_of(path)
    try:
        with open(partial, "wb") as file:
            np.savez(
                file,
                format=np.array(FORMAT),
                fingerprint=np.array(saved.fingerprint),
                tokens=np.array(saved.tokens, np.int64),
                keys=saved.keys,
                values=saved.values,
            )
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write the session ({error.strerror})", where=path) from None


def read_session(path: Path, spec: ModelSpec, fingerprint: str) -> SavedSession:
    """Read and check. Raises `InputError`."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            found = {name: data[name] for name in ("format", "fingerprint", "tokens", "keys", "values")}
    except OSError as error:
        raise InputError(f"cannot read the session ({error.strerror or error})", where=path) from None
    except (ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"not a session file ({error})", where=path) from None
    if str(found["format"]) != FORMAT:
        raise InputError(f"session format is {str(found['format'])[:40]!r}, expected {FORMAT}", where=path)
    if str(found["fingerprint"]) != fingerprint:
        raise InputError(
            "the session was saved with another package",
            where=path,
            hint="open the package it was saved with",
        )
    _check_arrays(path, spec, found)
    tokens = tuple(int(token) for token in found["tokens"])
    return SavedSession(fingerprint, tokens, found["keys"], found["values"])


def _check_arrays(path: Path, spec: ModelSpec, found: dict[str, NDArray[np.generic]]) -> None:
    tokens = found["tokens"]
    if tokens.dtype != np.int64 or tokens.ndim != 1 or len(tokens) > spec.max_context:
        raise InputError(f"tokens are {tokens.dtype} {tokens.shape}", where=path)
    ids = tokens.astype(np.int64)
    if ids.size and not (ids.min() >= 0 and ids.max() < spec.vocab_size):
        raise InputError(f"a token id is outside the vocabulary of {spec.vocab_size}", where=path)
    expected = (spec.num_blocks, len(tokens), spec.num_kv_heads, spec.head_dim)
    for name in ("keys", "values"):
        array = found[name]
        if array.dtype not in (np.float16, np.float32) or array.shape != expected:
            raise InputError(
                f"{name} are {array.dtype} {array.shape}, expected floats {expected}", where=path
            )
