"""Whether an MNN-LLM directory does what its package does.

Enters: a directory, loaded by `MNN.llm` in a child process, and the package it was made from, run by the
reference engine. Leaves: figures, or `EngineError` where a tolerance is exceeded. The tokenizer and the
chat template are compared too; what MNN's do otherwise becomes a note, since it may be out of reach.

Tolerances, and what they are made of:

- float weights, and quantized ones that MNN expands to float32 (`memory: normal`): the largest error is
  at most `EXACT_TOLERANCE` of the largest logit. Both sides compute in float32; 1e-6 is usual.
- quantized weights as they run (`memory: low`): MNN also rounds the activations of every layer to int8,
  one scale a row. The root mean square error is at most `LOW_MEMORY_TOLERANCE` of the logits' own spread:
  2e-2 is usual. A wiring mistake gives 1 or more. Models of up to `EXPANDED_BYTES` are also held against
  the exact tolerance. Where one scale a row costs more than `COARSE_TOLERANCE`, the directory asks MNN for
  one a group of inputs (`dynamic_option` 2): models whose activations have a few very large channels need
  it. SmolLM2-135M int4: KL divergence from float32 activations 0.046 and 0.003. It costs speed: ChatGLM-6B
  int4 on two cores decodes 8.9 and 3.1 tokens a second.
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
COARSE_TOLERANCE = 0.05
ROW_SCALES, GROUP_SCALES = 0, 2  # values of `dynamic_option`
EXPANDED_BYTES = 1 << 30
REFERENCE_BYTES = 64 << 20
"""Memory for weights of the reference engine, which reads each of them only once here."""

PROMPT_TOKENS, STEPS = 12, 4

GROUP_NOTE = (
    "this model's activations need finer scales than MNN's default: config.json sets dynamic_option 2, "
    "which is slower"
)
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
    """What was found.

    `dynamic_option` is what config.json is to say. `relative_error` is the root mean square error over the
    logits' spread; `largest_error` the largest error over the largest logit; `expanded_error` the same with
    weights expanded to float32, where that was run.
    """

    tokens: int
    dynamic_option: int
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
    for option in (ROW_SCALES, GROUP_SCALES) if quantized else (ROW_SCALES,):
        settings = {**mapped, "dynamic_option": option}
        with MnnLlm(directory, all_logits=True, settings=settings) as model:
            found = run(model, ids)
            notes = (*_compare_tokenizers(model, package), *_compare_templates(model, package))
            loading, peak = model.loading, model.memory()["peak_bytes"]
        if relative_error(found, expected) <= COARSE_TOLERANCE:
            break
    expanded = None
    if quantized and expanded_bytes(package) <= EXPANDED_BYTES:
        with MnnLlm(directory, all_logits=True, settings={"memory": "normal"}) as model:
            expanded = largest_error(run(model, ids), expected)
    if option == GROUP_SCALES:
        notes = (*notes, GROUP_NOTE)
    report = CheckReport(
        tokens=len(expected),
        dynamic_option=option,
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
    """Logits [tokens, vocab] of prompt and steps, by the reference engine, its weights streamed from disk."""
    engine, spec = ReferenceEngine(), package.spec
    options = EngineOptions(memory_bytes=REFERENCE_BYTES)
    tokens = [*ids[0], *ids[1]]
    stage = engine.load_blocks(package, range(spec.num_blocks), options)
    stage.open(0)
    batch = Batch((Segment(0, 0, *PositionTracker(spec).advance(tokens)),))
    hidden = stage.forward(embed(package, tokens), batch)
    stage.release()
    head = engine.load_head(package, options)
    logits = head.logits(hidden)
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
