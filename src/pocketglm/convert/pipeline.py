"""From a checkpoint to a package, one weight file at a time.

Enters: a source and settings. Leaves: a package directory, complete or not there at all. Memory does
not depend on the model's size, finished files survive a kill, and the fidelity report is made from
the weights as they pass by.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import pocketglm
from pocketglm.architecture.table import TensorRule
from pocketglm.checkpoint import open_checkpoint
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.convert.fidelity import weights_report
from pocketglm.convert.journal import Journal
from pocketglm.convert.plan import ConversionPlan, fingerprint, plan_conversion
from pocketglm.convert.probe import Probe
from pocketglm.convert.rows import read_rows, row_chunks
from pocketglm.convert.settings import ConvertSettings
from pocketglm.convert.weights import WeightConverter
from pocketglm.errors import InputError, ResourceError
from pocketglm.package.manifest import EMBEDDING_FILES, MANIFEST_FILE, Manifest
from pocketglm.package.reader import Package, read_manifest
from pocketglm.package.writer import FileWriter, WeightFileWriter, write_small_file
from pocketglm.quantize.bfloat16 import to_bfloat16

SPARE_BYTES = 64 << 20
"""Disk space asked for beyond the package itself: manifest, journal and the file system's own needs."""


@dataclass(frozen=True)
class ConversionProgress:
    """`done` of `total` weights are converted; `step` is the file being written."""

    step: str
    done: int
    total: int


Progress = Callable[[ConversionProgress], None]


def convert(
    source: str | Path,
    output: str | Path,
    settings: ConvertSettings | None = None,
    progress: Progress | None = None,
) -> Path:
    """Convert the checkpoint `source` (a path or a hub name) to a package at `output`.

    Returns the package's path. Raises `CheckpointError`, `UnsupportedModelError`, `InputError` or
    `ResourceError`; whatever was finished by then is kept in `OUTPUT.partial` for `resume`.
    """
    settings, output = settings or ConvertSettings(), Path(output)
    _check_output(output, settings)
    with open_checkpoint(source) as checkpoint:
        plan = plan_conversion(checkpoint, settings)
        if output.exists() and not settings.overwrite:
            _check_finished(output, checkpoint, plan, settings)
            return output
        journal = Journal.start(
            output,
            fingerprint(checkpoint, plan, settings),
            resume=settings.resume,
            overwrite=settings.overwrite,
        )
        try:
            _Conversion(checkpoint, plan, settings, journal, progress).run()
            keep = frozenset([MANIFEST_FILE, *journal.files])
            journal.finish(output, keep, overwrite=settings.overwrite)
        finally:
            journal.release()
    return output


def _check_output(output: Path, settings: ConvertSettings) -> None:
    if not output.exists():
        return
    if not settings.overwrite and not settings.resume:
        raise InputError("already exists", where=output, hint="choose another name, or add --overwrite")
    if not (output / MANIFEST_FILE).is_file():
        raise InputError(f"is not a package (no {MANIFEST_FILE}) and is left alone", where=output)


def _check_finished(
    output: Path, checkpoint: Checkpoint, plan: ConversionPlan, settings: ConvertSettings
) -> None:
    """What `resume` finds finished must be what it was asked for."""
    manifest = read_manifest(output)
    found = (manifest.spec, manifest.quantization, manifest.source)
    if found != (plan.spec, settings.quantize.to_dict(), source_of(checkpoint, plan)):
        raise InputError(
            "already exists, from another source or with other settings",
            where=output,
            hint="choose another name, or add --overwrite",
        )


class _Conversion:
    """The steps of one conversion. Each leaves one file and one journal entry."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: ConversionPlan,
        settings: ConvertSettings,
        journal: Journal,
        progress: Progress | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._settings = settings
        self._journal = journal
        self._progress = progress
        self._probe: Probe | None = None
        if settings.report and not plan.lossless:
            self._probe = Probe(checkpoint, plan, journal)
        self._done = 0

    def run(self) -> None:
        plan, directory = self._plan, self._journal.directory
        finished = {name for name in self._journal.files if self._journal.finished(name)}
        self._check_disk(finished)
        for name, text in plan.texts.items():
            if name not in finished:
                self._journal.record(name, write_small_file(directory / name, text.encode()))
        steps = self._steps_to_do(finished)
        # Two threads each do everything for their rows, so BLAS must not start threads of its own.
        with ThreadPoolExecutor(self._settings.threads) as pool, threadpool_limits(1, "blas"):
            self._convert_embedding(finished, pool)
            for step in range(len(plan.layouts)):
                if step in steps:
                    self._convert_weights(step, pool)
                else:
                    self._advance(plan.layouts[step].file, sum(rule.size for rule in self._rules(step)))
        write_small_file(directory / MANIFEST_FILE, self._manifest().to_json().encode())
        Package.open(directory).close()

    def _check_disk(self, finished: set[str]) -> None:
        """Refuse to start what the disk cannot hold."""
        written = sum(self._journal.files[name].size for name in finished)
        needed = self._plan.size - written + SPARE_BYTES
        free = shutil.disk_usage(self._journal.directory).free
        if free < needed:
            raise ResourceError(
                f"the package needs {needed / 2**20:.0f} MiB more, {free / 2**20:.0f} MiB are free",
                where=self._journal.directory,
                hint="free some disk space, or name an output on another disk",
            )

    def _steps_to_do(self, finished: set[str]) -> range | list[int]:
        """Steps (blocks, then the head) whose files are not there yet, or that the probe must pass."""
        files = [layout.file for layout in self._plan.layouts]
        unfinished = [step for step, file in enumerate(files) if file not in finished]
        if self._probe is None or not unfinished:
            return unfinished
        return range(self._probe.first_step(unfinished[0]), len(files))

    def _convert_embedding(self, finished: set[str], pool: ThreadPoolExecutor) -> None:
        wide = self._plan.embedding_dtype == "float32"
        name = EMBEDDING_FILES[self._plan.embedding_dtype]
        rule = self._plan.table.embedding
        if name in finished:
            self._advance(name, rule.size)
            return
        hidden, element = rule.shape[1], 4 if wide else 2
        writer = FileWriter(self._journal.directory / name, self._plan.embedding_bytes)

        def convert_rows(chunk: tuple[int, int]) -> int:
            rows = read_rows(self._checkpoint, rule, *chunk)
            if not np.isfinite(rows).all():
                raise InputError("embedding.weight holds values that are not finite", where=name)
            data = rows.astype("<f4", copy=False) if wide else to_bfloat16(rows)
            writer.write(chunk[0] * hidden * element, data)
            return chunk[1]

        try:
            for count in pool.map(convert_rows, row_chunks(rule.shape)):
                self._advance(name, count * hidden)
            self._journal.record(name, writer.finish())
        finally:
            writer.abandon()

    def _convert_weights(self, step: int, pool: ThreadPoolExecutor) -> None:
        """Block `step`, or the head after the last one."""
        layout = self._plan.layouts[step]
        writer = WeightFileWriter(self._journal.directory, layout)
        try:
            converter = WeightConverter(
                self._checkpoint,
                self._rules(step),
                layout,
                writer,
                pool,
                on_elements=lambda count: self._advance(layout.file, count),
            )
            if self._probe is None:
                converter.convert_all()
                report: dict[str, Any] = {"weights": weights_report(converter.errors)}
            else:
                report = self._probe.convert_step(step, converter)
            self._journal.record(layout.file, writer.finish(), report)
        finally:
            writer.abandon()
        self._journal.drop_hidden(before=step + 1)

    def _rules(self, step: int) -> tuple[TensorRule, ...]:
        table = self._plan.table
        return table.blocks[step] if step < len(table.blocks) else table.head

    def _manifest(self) -> Manifest:
        plan, journal = self._plan, self._journal
        return Manifest(
            spec=plan.spec,
            embedding_dtype=plan.embedding_dtype,
            files=dict(journal.files),
            weights={layout.file: layout.entries for layout in plan.layouts},
            source=source_of(self._checkpoint, plan),
            quantization=self._settings.quantize.to_dict(),
            fidelity=self._fidelity(),
        )

    def _fidelity(self) -> dict[str, Any]:
        reports = [self._journal.reports[layout.file] for layout in self._plan.layouts]
        head = dict(reports[-1])
        model = head.pop("model", None)
        return {
            "probe_tokens": len(self._probe.ids) if self._probe else 0,
            "model": model,
            "blocks": reports[:-1],
            "head": head,
        }

    def _advance(self, step: str, elements: int) -> None:
        self._done += elements
        if self._progress:
            self._progress(ConversionProgress(step, self._done, self._plan.elements))


def source_of(checkpoint: Checkpoint, plan: ConversionPlan) -> dict[str, Any]:
    """Where a package comes from, for its manifest: no private paths, and the same for the same source."""
    files = sorted({info.file for info in checkpoint.tensors.values()})
    source: dict[str, Any] = {
        "name": checkpoint.path.resolve().name,
        "format": checkpoint.format,
        "files": [{"name": file.name, "size": file.stat().st_size} for file in files],
        "converter": f"pocketglm {pocketglm.__version__}",
    }
    if plan.kept_rows is not None:
        source["kept_rows"] = _runs(plan.kept_rows)
    return source


def _runs(rows: tuple[int, ...]) -> list[list[int]]:
    """[start, count] runs of ascending row numbers."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and sum(runs[-1]) == row:
            runs[-1][1] += 1
        else:
            runs.append([row, 1])
    return runs
