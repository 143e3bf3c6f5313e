"""`export --format mnn`: MNN graphs of a package's blocks and head, which read its own weight files.

Enters: a package. Leaves: the package with `block_00.mnn` ... and `head.mnn` beside its weights. One
block is traced for all (PyTorch -> ONNX -> MNN), then pointed at each distinct layout's offsets. No
weight is read, so time and memory do not depend on the weights' size.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pocketglm.engine.mnn.interface import GRAPHS, INTERFACE, graph_file
from pocketglm.engine.mnn.runtime import mnn_version
from pocketglm.errors import InputError
from pocketglm.export.external_weights import point_at_weights
from pocketglm.export.mnn_converter import JsonGraph, graph_from_onnx, graph_to_bytes
from pocketglm.export.onnx_trace import trace_block, trace_head
from pocketglm.export.package_files import add_graphs, link_package
from pocketglm.package.encoding import TensorEntry
from pocketglm.package.layout import HEAD_FILE, block_file
from pocketglm.package.manifest import Manifest
from pocketglm.package.reader import Package
from pocketglm.package.writer import partial_of

Progress = Callable[[str, int, int], None]
"""(what is being made, graphs done, graphs in all)."""


def export_graphs(
    package: str | Path, output: str | Path | None = None, progress: Progress | None = None
) -> Path:
    """Add MNN graphs to the package, or to a new one at `output` that shares its files.

    Without `output`, or where it is the package itself, the graphs are added in place (or replace older
    ones). A new `output` gets hard links to the package's files where the file system allows, copies
    otherwise; it appears whole or not at all. Weight files are never changed. Returns the package's path.
    Raises `PackageError`, `MissingExtraError`, and `InputError` where `output` exists already.
    """
    source = Path(package)
    with Package.open(source) as opened:  # checks the manifest and the sizes of all files
        manifest = opened.manifest
    target = source if output is None else Path(output)
    in_place = target.exists() and target.resolve() == source.resolve()
    if target.exists() and not in_place:
        raise InputError(
            "exists already", where=target, hint="name a new directory, or leave out -o to add in place"
        )
    graphs = dict(make_graphs(manifest, progress))
    stamp = {"mnn_version": mnn_version(), "interface": INTERFACE}
    if in_place:
        add_graphs(source, GRAPHS, graphs, stamp)
        return source
    partial = partial_of(target)
    if partial.exists():
        raise InputError("is in the way", where=partial, hint="remove it, or name another directory")
    try:
        link_package(source, partial)
        add_graphs(partial, GRAPHS, graphs, stamp)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def make_graphs(manifest: Manifest, progress: Progress | None = None) -> Iterator[tuple[str, bytes]]:
    """File name and content of every graph of a package; blocks of one layout have the same content."""
    spec = manifest.spec
    total = spec.num_blocks + 1
    made: dict[tuple[TensorEntry, ...], bytes] = {}
    with tempfile.TemporaryDirectory(prefix="pocketglm-") as name:
        folder = Path(name)
        traced = _traced(manifest, folder)
        for index in range(total):
            file = HEAD_FILE if index == spec.num_blocks else block_file(index)
            if progress:
                progress(graph_file(file), index, total)
            entries = manifest.weights[file]
            if entries not in made:
                graph = point_at_weights(traced[file == HEAD_FILE], entries, spec.norm_eps)
                made[entries] = graph_to_bytes(graph, folder)
            yield graph_file(file), made[entries]


def _traced(manifest: Manifest, folder: Path) -> tuple[JsonGraph, JsonGraph]:
    """The graphs of a block and of the head, with placeholders."""
    onnx_file = folder / "traced.onnx"
    trace_block(manifest.spec, onnx_file)
    block = graph_from_onnx(onnx_file, folder)
    trace_head(manifest.spec, onnx_file)
    return block, graph_from_onnx(onnx_file, folder)
