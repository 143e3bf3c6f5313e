"""MNN's converter, called through its binding: ONNX -> MNN -> JSON -> MNN.

Enters: ONNX files, or graphs as JSON objects. Leaves: graphs as JSON objects, or the bytes of `.mnn`
files. The wheel's command-line wrappers are never called: they install packages and report usage.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.mnn.native_output import captured_output
from pocketglm.engine.mnn.runtime import INSTALL_HINT
from pocketglm.errors import EngineError, MissingExtraError

JsonGraph = dict[str, Any]
"""MNN's `Net` table as JSON."""

OPTIONS = ("--allowCustomOp", "--optimizeLevel", "1")


def graph_from_onnx(onnx_file: Path, folder: Path) -> JsonGraph:
    """Convert an ONNX file. `folder` takes temporary files. Unknown operators become `Extra` ones."""
    mnn_file, json_file = folder / "converted.mnn", folder / "converted.json"
    _run(mnn_file, "-f", "ONNX", "--modelFile", onnx_file, "--MNNModel", mnn_file, *OPTIONS)
    _run(json_file, "-f", "MNN", "--modelFile", mnn_file, "--JsonFile", json_file)
    graph: JsonGraph = json.loads(json_file.read_text("utf-8"))
    graph.pop("mnn_uuid", None)  # differs in every run
    restore_constants(graph, onnx_file)
    return graph


def graph_to_bytes(graph: JsonGraph, folder: Path) -> bytes:
    """The `.mnn` file of a graph; equal graphs give equal bytes. `folder` takes temporary files."""
    mnn_file, json_file = folder / "final.mnn", folder / "final.json"
    json_file.write_text(json.dumps(graph, allow_nan=False), "utf-8")
    _run(mnn_file, "-f", "JSON", "--modelFile", json_file, "--MNNModel", mnn_file)
    return mnn_file.read_bytes()


def restore_constants(graph: JsonGraph, onnx_file: Path) -> None:
    """Give float constants their exact values: MNN's JSON has six decimals of each."""
    exact = _onnx_constants(onnx_file)
    for op in graph["oplists"]:
        if op["type"] != "Const" or "float32s" not in op["main"]:
            continue
        name = graph["tensorName"][op["outputIndexes"][0]]
        found = np.array(op["main"]["float32s"], np.float32)
        values = exact.get(name)
        if values is None or values.size != found.size or not np.allclose(values, found, atol=1e-6):
            raise EngineError(f"MNN's converter changed the constant {name}", where=onnx_file)
        op["main"]["float32s"] = [float(value) for value in values]


def _onnx_constants(onnx_file: Path) -> dict[str, NDArray[np.float32]]:
    """Float constants of an ONNX file by the name of their tensor, flat."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(onnx_file))
    tensors = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return {name: a.astype(np.float32).ravel() for name, a in arrays.items() if a.dtype.kind == "f"}


def _run(target: Path, *arguments: str | Path) -> None:
    """Convert to `target`. The binding reports success whatever happens, so its result is looked at."""
    target.unlink(missing_ok=True)
    tools = _tools()
    with captured_output() as printed:
        tools.mnnconvert(["pocketglm", *map(str, arguments)])  # the first argument is not read
    lines = [line.strip() for line in printed.text.splitlines()]
    if refused := [line for line in lines if line.startswith("Invalid:")]:  # a field it does not know
        raise EngineError(f"MNN's converter refused a setting ({refused[0]})", where=target.name)
    if not target.is_file() or target.stat().st_size == 0:
        said = next((line for line in reversed(lines) if line), "it gave no reason")
        raise EngineError(f"MNN's converter failed ({said})", where=target.name)


@cache
def _tools() -> Any:
    try:
        with captured_output():
            import _tools as tools  # the converter's binding, installed beside MNN
    except ImportError as error:
        raise MissingExtraError(f"MNN's converter cannot be imported ({error})", hint=INSTALL_HINT) from error
    return tools
