"""What Python holds beside an engine: arrays of a pass, logits, and what the interpreter comes to hold.

Enters: a spec and a context. Leaves: bytes.
"""

from __future__ import annotations

from pocketglm.architecture.spec import ModelSpec

CHUNK_ROWS = 512
"""Rows of a long prompt computed at once: many, so that blocks read from disk are read seldom, and few enough
that what is kept of all rows (hidden states and queries, 8 MB each in ChatGLM2-6B) stays small."""

CACHE_SHARE = 4
"""Without a context asked for, KV caches get one part in this many of a memory limit."""

LEAST_CONTEXT = 256
"""Tokens: fewer hold no question and answer."""

INTERPRETER_BYTES = 16 << 20
"""What Python comes to hold after the start, at most: modules imported later, and what its allocator keeps
back. Measured: 6 to 8 MiB in `run`, `chat` and `bench`."""

GPU_ENGINE_BYTES = 16 << 20
"""What PyTorch comes to hold of the process's memory beside that, where it computes some blocks."""

HIDDEN_COPIES = 2
"""Arrays of [rows, hidden] alive at once: what enters and leaves a stage that cannot compute in place, or
rows of the embedding in 2 bytes and in 4."""

LOGITS_COPIES = 4
"""Arrays of [vocab] float64 alive at once while a token is drawn and its probability is worked out."""


def rows_at_once(spec: ModelSpec, context: int) -> int:
    """Rows of the largest pass: a bidirectional context is computed in one piece."""
    return context if spec.prefix_tokens is not None else min(CHUNK_ROWS, context)


def python_bytes(spec: ModelSpec, context: int, logits_rows: int, uses_gpu: bool) -> int:
    """At most, beside what the process holds when the model is loaded."""
    itself = INTERPRETER_BYTES + (GPU_ENGINE_BYTES if uses_gpu else 0)
    return itself + pass_bytes(spec, context) + sampling_bytes(spec, logits_rows)


def pass_bytes(spec: ModelSpec, context: int) -> int:
    """Hidden states of the largest pass."""
    return 4 * spec.hidden_size * rows_at_once(spec, context) * HIDDEN_COPIES


def sampling_bytes(spec: ModelSpec, logits_rows: int) -> int:
    """Logits, and what it takes to draw a token from one row of them."""
    return spec.vocab_size * (4 * logits_rows + 8 * LOGITS_COPIES)
