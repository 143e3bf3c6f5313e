"""Whether an MNN-LLM directory does what its package does.

Enters: a directory, loaded by `MNN.llm` in a child process, and the package it was made from, run by the
reference engine. Leaves: figures, or `EngineError` where a tolerance is exceeded. The tokenizer and the
chat template are compared too; what MNN's do otherwise becomes a note, since it may be out of reach.

Tolerances, and what they are made of:

- float weights, and quantized ones that MNN expands to float32 (`memory: normal`): the largest error is
  at most `EXACT_TOLERANCE` of the largest logit. Both sides compute in float32; 1e-6 is usual.
- quantized weights as they run (`memory: low`): MNN also rounds the activations of every layer to int8,
  one scale a row. The root mean square error is at most `LOW_MEMORY_TOLERANCE` of the logits' own spread:
  2e-2 is usual for a small model, and it grows with the root of the number of blocks. A wiring mistake
  gives 1 or more. Models of up to `EXPANDED_BYTES` are also held against the exact tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.convert.probe import PROBE_TEXT
from pocketglm.engine.contract import Batch, EngineOptions, Segment, embed
from pocketglm.engine.positions import PositionTracker
from pocketglm.engine.reference.engine import ReferenceEngine, block_bytes, head_bytes
from pocketglm.errors import EngineError, PocketGLMError
from pocketglm.export.mnn_llm.runner import MnnLlm
from pocketglm.generate.template import ChatTemplate
from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.reader import Package

Float32 = NDArray[np.float32]
EXACT_TOLERANCE = 1e-3
LOW_MEMORY_TOLERANCE = 0.25
EXPANDED_BYTES = 1 << 30
PROMPT_TOKENS, STEPS = 12, 4

SAMPLE_TEXTS = (
    "The lighthouse keeper wrote: wind 17 knots, isn't it?",
    "小镇的图书馆每天早上八点开门，下午六点关门。",
    "你好, world! 今天是2024年3月5日, ok?",
    "def area(r):\n    return 3.14 * r ** 2\n\n\tprint(area(2))",
    "  two  blanks and 😀 emoji — “quotes” ½",
)
CONVERSATIONS = (
    ({"role": "user", "content": "你好"},),
    (
        {"role": "user", "content": "What is a lighthouse?"},
        {"role": "assistant", "content": "A tower with a light."},
        {"role": "user", "content": "在哪里？"},
    ),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}),
)


@dataclass(frozen=True)
class CheckReport:
    """`relative_error`: root mean square error over the logits' spread. `largest_error`: largest error over
    the largest logit; `expanded_error` the same with weights expanded to float32, where that was run."""

    tokens: int
    relative_error: float
    largest_error: float
    top1_agreement: float
    expanded_error: float | None
    load_seconds: float
    peak_bytes: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the notes."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}


def check_directory(directory: Path, package: Package, scratch: Path | None = None) -> CheckReport:
    """Compare `directory` with `package`. Raises `EngineError` where they differ.

    With `scratch`, a folder, MNN keeps its rearranged weights in files there and not in memory.
    """
    ids = probe_ids(package)
    expected = reference_logits(package, ids)
    mapped = {} if scratch is None else {"use_mmap": True, "tmp_path": str(scratch)}
    quantized = any(
        isinstance(entry, LinearEntry) and entry.format.quantized
        for entries in package.manifest.weights.values()
        for entry in entries
    )
    with MnnLlm(directory, all_logits=True, settings=mapped) as model:
        found = run(model, ids)
        notes = (*_compare_tokenizers(model, package), *_compare_templates(model, package))
        loading, peak = model.loading, model.memory()["peak_bytes"]
    expanded = None
    if quantized and expanded_bytes(package) <= EXPANDED_BYTES:
        with MnnLlm(directory, all_logits=True, settings={"memory": "normal"}) as model:
            expanded = largest_error(run(model, ids), expected)
    report = CheckReport(
        tokens=len(expected),
        relative_error=relative_error(found, expected),
        largest_error=largest_error(found, expected),
        top1_agreement=float(np.mean(found.argmax(-1) == expected.argmax(-1))),
        expanded_error=expanded,
        load_seconds=round(float(loading["seconds"]), 3),
        peak_bytes=peak,
        notes=notes,
    )
    _judge(report, quantized, directory)
    return report


def _judge(report: CheckReport, quantized: bool, directory: Path) -> None:
    exact = report.expanded_error if quantized else report.largest_error
    for name, error, tolerance in (
        ("logits", exact, EXACT_TOLERANCE),
        ("logits with int8 activations", report.relative_error, LOW_MEMORY_TOLERANCE),
    ):
        if error is not None and not error <= tolerance:  # NaN fails too
            raise EngineError(
                f"MNN.llm's {name} are off by {error:.2g} of the package's, expected at most {tolerance:g}",
                where=directory,
                hint="this is a fault of the export or of the installed MNN: please report it",
            )


def probe_ids(package: Package) -> tuple[list[int], list[int]]:
    """A prompt, and the tokens that are fed one by one after it."""
    spec = package.spec
    special = spec.prefix_tokens
    tokenizer = tokenizer_of(package)
    if tokenizer is not None:
        ids = tokenizer.encode(PROBE_TEXT)
    else:
        ids = np.random.default_rng(0).integers(0, spec.vocab_size, PROMPT_TOKENS + STEPS).tolist()
    if special is not None:
        ids = [token for token in ids if token not in (special.mask, special.gmask, special.sop)]
    total = min(PROMPT_TOKENS + STEPS, len(ids), spec.max_context - 2)
    steps = min(STEPS, max(total - 1, 0))
    prompt, rest = ids[: total - steps], ids[total - steps : total]
    if special is not None:
        prompt = [*prompt, special.gmask, special.sop]  # MNN takes the last token for <sop>
    return prompt, rest


def reference_logits(package: Package, ids: tuple[list[int], list[int]]) -> Float32:
    """Logits [tokens, vocab] of prompt and steps, by the reference engine, in one pass over the weights."""
    engine, spec = ReferenceEngine(), package.spec
    tracker = PositionTracker(spec)
    pieces = [ids[0], *([token] for token in ids[1])]
    hidden = [embed(package, piece) for piece in pieces]
    batches = []
    for piece in pieces:
        start = tracker.length
        batches.append(Batch((Segment(0, start, *tracker.advance(piece)),)))
    for index in range(spec.num_blocks):  # block by block, so that each is dequantized once
        options = EngineOptions(memory_bytes=4 * (block_bytes(spec) + head_bytes(spec)))
        stage = engine.load_blocks(package, range(index, index + 1), options)
        stage.open(0)
        hidden = [stage.forward(rows, batch) for rows, batch in zip(hidden, batches, strict=True)]
        stage.release()
    head = engine.load_head(package, EngineOptions(memory_bytes=0))
    logits = head.logits(np.concatenate(hidden))
    head.release()
    return logits


def run(model: MnnLlm, ids: tuple[list[int], list[int]]) -> Float32:
    """The same by MNN."""
    return np.concatenate([model.forward(ids[0]), *(model.forward([token])[-1:] for token in ids[1])])


def relative_error(found: Float32, expected: Float32) -> float:
    """Root mean square error over the spread of the logits, the mean of every row, which means nothing,
    taken away from both."""
    found, expected = (rows - rows.mean(axis=-1, keepdims=True) for rows in (found, expected))
    return float(np.sqrt(np.mean(np.square(found - expected)) / np.mean(np.square(expected))))


def largest_error(found: Float32, expected: Float32) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def expanded_bytes(package: Package) -> int:
    """Weights as float32."""
    spec = package.spec
    return spec.num_blocks * block_bytes(spec) + head_bytes(spec)


def tokenizer_of(package: Package) -> Tokenizer | None:
    text = package.text("tokenizer.json")
    return None if text is None else Tokenizer.from_json(text, str(package.path / "tokenizer.json"))


def _compare_tokenizers(model: MnnLlm, package: Package) -> Sequence[str]:
    """A note for every sample text that MNN's tokenizer encodes otherwise, or does not give back."""
    tokenizer = tokenizer_of(package)
    if tokenizer is None:
        return ()
    notes = []
    prefix = model.encode([""])[0]
    for text, found in zip(SAMPLE_TEXTS, model.encode(SAMPLE_TEXTS), strict=True):
        expected = tokenizer.encode(text)
        if found[len(prefix) :] != expected:
            notes.append(f"MNN's tokenizer encodes {text!r} otherwise")
        elif (
            model.decode(expected).decode("utf-8", "replace").lstrip() != tokenizer.decode(expected).lstrip()
        ):
            notes.append(f"MNN's tokenizer does not give {text!r} back")
    return notes


def _compare_templates(model: MnnLlm, package: Package) -> Sequence[str]:
    """A note for every conversation that MNN's template engine writes otherwise."""
    tokenizer = tokenizer_of(package)
    source = package.text("chat_template.jinja")
    if tokenizer is None or source is None:
        return ()
    template = ChatTemplate(source, tokenizer)
    notes = []
    for messages in CONVERSATIONS:
        roles = ", ".join(message["role"] for message in messages)
        expected = _rendered(template, messages)
        if expected is None:
            continue  # the model has no such role
        try:
            found = model.apply_chat_template(messages)
        except EngineError:
            notes.append(f"MNN's template engine fails on the chat template ({roles})")
            break  # its process may be gone
        if found != expected:
            notes.append(f"MNN's template engine writes a conversation ({roles}) otherwise")
    return notes


def _rendered(template: ChatTemplate, messages: Sequence[Mapping[str, str]]) -> str | None:
    try:
        return template.render(messages)
    except PocketGLMError:
        return None
