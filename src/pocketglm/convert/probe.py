"""The few tokens that flow through the model while it is converted.

Enters: the plan and a weight file's converter, step after step. Leaves: the converted file's fidelity
report, and the hidden states that enter the next step, kept in the journal. With a tokenizer the
tokens are real text; without one (a bare checkpoint) pseudo-random ids, always the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pocketglm.architecture.spec import ModelSpec
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.convert.fidelity import block_report, head_report
from pocketglm.convert.journal import Journal
from pocketglm.convert.plan import TOKENIZER_FILE, ConversionPlan
from pocketglm.convert.rows import read_rows
from pocketglm.convert.weights import WeightConverter
from pocketglm.engine.positions import PositionTracker
from pocketglm.engine.reference.block import apply_norm, block_forward, prompt_attend
from pocketglm.engine.reference.rotary import rotate_at
from pocketglm.quantize.bfloat16 import from_bfloat16, to_bfloat16

Float32 = NDArray[np.float32]
PATHS = 3  # see convert.weights
PROBE_TOKENS = 48
"""At 48, the probe is a fifth of the work of converting ChatGLM-6B (125 s of CPU time, 103 s without)."""

PROBE_TEXT = (
    "The lighthouse keeper wrote down the weather every evening: wind from the north-west, 17 knots, "
    "rain after midnight. 小镇的图书馆每天早上八点开门，下午六点关门。"
    "def area(radius): return 3.14159 * radius ** 2"
)


def probe_ids(spec: ModelSpec, text_ids: list[int] | None) -> list[int]:
    """Token ids for the probe, at most `PROBE_TOKENS` and the model's context.

    Models with a bidirectional prefix get [gMASK] <sop> in the middle, so that both kinds of
    positions occur.
    """
    count = min(PROBE_TOKENS, spec.max_context)
    ids = text_ids or np.random.default_rng(0).integers(0, spec.vocab_size, count).tolist()
    if spec.prefix_tokens is None:
        return ids[:count]
    special = {spec.prefix_tokens.mask, spec.prefix_tokens.gmask, spec.prefix_tokens.sop}
    ids = [token for token in ids if token not in special][: count - 2]
    middle = len(ids) // 2
    return [*ids[:middle], spec.prefix_tokens.gmask, spec.prefix_tokens.sop, *ids[middle:]]


class Probe:
    """Runs the blocks of one model over the probe as they are converted."""

    def __init__(self, checkpoint: Checkpoint, plan: ConversionPlan, journal: Journal) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._journal = journal
        self.ids = probe_ids(plan.spec, _encode(plan.texts.get(TOKENIZER_FILE)))

    def first_step(self, unfinished: int) -> int:
        """Where to start so that step `unfinished` gets its hidden states: there, or earlier."""
        step = unfinished
        while step > 0 and self._journal.load_hidden(step, self._shape) is None:
            step -= 1
        return step

    def convert_step(self, step: int, converter: WeightConverter) -> dict[str, Any]:
        """Convert block `step`, or the head after the last one; returns the report."""
        spec, hidden = self._plan.spec, self._hidden(step)
        if step == spec.num_blocks:
            normed = apply_norm(spec, hidden, converter.vector, "norm")
            return head_report(converter.errors, converter.linear("head", normed))
        positions, prefix = PositionTracker(spec).advance(self.ids)
        rotation = rotate_at(spec.rotary, positions)
        attend = prompt_attend(spec, step, prefix)
        after = block_forward(spec, hidden, converter.linear, converter.vector, rotation, attend)
        report = block_report(converter.errors, after)
        after[1] = after[0]
        self._journal.save_hidden(step + 1, after)
        return report

    @property
    def _shape(self) -> tuple[int, int, int]:
        return PATHS, len(self.ids), self._plan.spec.hidden_size

    def _hidden(self, step: int) -> Float32:
        """The hidden states [3, rows, hidden] that enter `step`."""
        kept = self._journal.load_hidden(step, self._shape) if step > 0 else None
        return self._embed() if kept is None else kept

    def _embed(self) -> Float32:
        rule = self._plan.table.embedding
        original = np.concatenate([read_rows(self._checkpoint, rule, token, 1) for token in self.ids])
        stored = original
        if self._plan.embedding_dtype == "bfloat16":
            stored = from_bfloat16(to_bfloat16(original))
        return np.stack([original, original, stored]) * np.float32(self._plan.spec.embedding_scale)


def _encode(tokenizer: str | None) -> list[int] | None:
    """The probe text through the package's own tokenizer."""
    return None if tokenizer is None else list(Tokenizer.from_str(tokenizer).encode(PROBE_TEXT).ids)
