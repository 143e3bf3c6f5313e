"""`export --format mnn-llm`: from a package to the directory that MNN's own engine and phone apps load.

Enters: a package. Leaves: a directory that has been loaded and compared with the package, or nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pocketglm.engine.mnn.runtime import mnn_version
from pocketglm.errors import EngineError, InputError, ResourceError
from pocketglm.export.mnn_llm import settings
from pocketglm.export.mnn_llm.check import ROW_SCALES, CheckReport, check_directory, tokenizer_of
from pocketglm.export.mnn_llm.graph import GRAPH_FILE, make_graph
from pocketglm.export.mnn_llm.tokenizer import (
    TOKENIZER_FILE,
    MnnTokenizer,
    build_tokenizer,
    placeholder_tokenizer,
)
from pocketglm.export.mnn_llm.weights import WeightPlan, plan_weights, write_weights
from pocketglm.generate.answer_defaults import AnswerDefaults
from pocketglm.generate.template import TEMPLATE_FILE
from pocketglm.package.reader import Package
from pocketglm.package.writer import disk_errors, partial_of, write_small_file

Progress = Callable[[str, int, int], None]
"""(what is being written, bytes done, bytes in all)."""

SIDE_FILE = "tokenizer.json"
"""Not for MNN: what the tokenizer is read back from."""

SPARE_BYTES = 64 << 20
"""Disk space beyond the weights: graph, tokenizer and the file system's own needs."""

LOADED_SHARE = 1.5
"""Memory that loading a model takes, in sizes of its weight file: 1.35 at most for ChatGLM-6B, 1.14 later."""


@dataclass(frozen=True)
class MnnLlmExport:
    """A finished directory. `notes` says what MNN's engine does otherwise than PocketGLM."""

    path: Path
    size: int
    check: CheckReport
    notes: tuple[str, ...]


def export_mnn_llm(package: str | Path, output: str | Path, progress: Progress | None = None) -> MnnLlmExport:
    """Write the package as an MNN-LLM directory at `output`, and check it there with `MNN.llm`.

    Raises `InputError` where `output` exists, `ResourceError` where disk or memory is short,
    `MissingExtraError` without MNN, onnx or torch, and `EngineError` for what MNN cannot run or where its
    logits differ from the package's. Nothing is left at `output` then.
    """
    target = Path(output)
    partial = partial_of(target)
    for path, message in ((target, "exists already"), (partial, "is in the way")):
        if path.exists():
            raise InputError(message, where=path, hint="remove it, or name another directory")
    version = mnn_version()
    with Package.open(package) as opened:
        _check_supported(opened)
        plan = plan_weights(opened)
        _check_disk(plan, target.parent)
        try:
            with disk_errors(partial):
                partial.mkdir()
            notes = _write(opened, plan, partial, progress)
            report = _check(opened, plan, partial)
            _write_run_settings(opened, plan, partial, report.dynamic_option)
            _write_json(partial, settings.STAMP_FILE, settings.stamp(opened, plan, version, report.to_dict()))
            with disk_errors(target):
                partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    size = sum(file.stat().st_size for file in target.iterdir())
    return MnnLlmExport(target, size, report, (*notes, *report.notes))


def _check_supported(package: Package) -> None:
    spec = package.spec
    if spec.rotary.axes > 1 and spec.positions != "glm_2d":
        raise EngineError(
            f"MNN.llm gives one row of positions, this model needs {spec.rotary.axes}",
            where=package.path,
            hint="run it with `pocketglm run`",
        )
    if spec.positions == "glm_2d" and spec.sliding_window is not None:
        raise EngineError("MNN.llm has no sliding window for a bidirectional prefix", where=package.path)


def _check_disk(plan: WeightPlan, directory: Path) -> None:
    with disk_errors(directory):  # the folder may not exist
        free, needed = shutil.disk_usage(directory).free, plan.size + SPARE_BYTES
    if free < needed:
        raise ResourceError(
            f"the export needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free",
            where=directory,
            hint="free some disk space, or name an output on another disk",
        )


def _write(package: Package, plan: WeightPlan, directory: Path, progress: Progress | None) -> list[str]:
    """Everything but the stamp. Returns notes."""
    from pocketglm.export.mnn_llm.model_module import has_window

    spec, done = package.spec, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("weights", done, plan.size)

    if progress:
        progress("graph", 0, plan.size)
    graph = make_graph(spec, plan.tensors, plan.embedding)
    write_small_file(directory / GRAPH_FILE, graph)
    write_weights(package, plan, directory, advance)
    template = package.text(TEMPLATE_FILE)
    stops = sorted(AnswerDefaults.of(package).end_tokens)
    tokenizer = _tokenizer(package, stops, has_template=template is not None)
    write_small_file(directory / TOKENIZER_FILE, tokenizer.data)
    if (text := package.text(SIDE_FILE)) is not None:
        write_small_file(directory / SIDE_FILE, text.encode())
    eos = settings.token_text(tokenizer_of(package), stops[0] if stops else None)
    window = has_window(spec)
    model = settings.model_settings(spec, plan, window, template, eos)
    _write_json(directory, settings.MODEL_FILE, model)
    _write_run_settings(package, plan, directory)
    notes = list(tokenizer.notes)
    if spec.positions == "glm_2d":
        notes.append("MNN computes every prompt from its start: the cache of a conversation is not reused")
    return notes


def _write_run_settings(
    package: Package, plan: WeightPlan, directory: Path, dynamic_option: int = ROW_SCALES
) -> None:
    sampling = AnswerDefaults.of(package).settings()
    data = settings.run_settings(package, plan, sampling, dynamic_option)
    _write_json(directory, settings.CONFIG_FILE, data)


def _tokenizer(package: Package, stops: list[int], *, has_template: bool) -> MnnTokenizer:
    text, vocab_size = package.text(SIDE_FILE), package.spec.vocab_size
    if text is None:
        return placeholder_tokenizer(vocab_size, stops)
    return build_tokenizer(text, vocab_size, stops, has_template=has_template)


def _check(package: Package, plan: WeightPlan, directory: Path) -> CheckReport:
    """Load it and compare. Where memory is short, MNN maps its rearranged weights from disk meanwhile."""
    available = psutil.virtual_memory().available
    if available >= LOADED_SHARE * plan.weight_bytes:
        return check_directory(directory, package)
    _check_disk(plan, directory)
    scratch = directory / "check"
    scratch.mkdir()
    report = check_directory(directory, package, scratch)
    shutil.rmtree(scratch)
    return report


def _write_json(directory: Path, name: str, data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_small_file(directory / name, text.encode())
