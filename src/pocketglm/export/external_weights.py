"""Placeholders of a converted graph become MNN layers that read a package's weight file.

Enters: a graph as JSON with `Extra` operators (`Linear`, `Norm`) and the tensors of one weight file.
Leaves: the graph with 1x1 convolutions and layer norms whose weights are offsets into that file, byte
for byte what the package holds. Source of the fields: MNN 3.6 (`schema/default/*.fbs`), measured
against its runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pocketglm.errors import EngineError, PackageError
from pocketglm.export.mnn_converter import JsonGraph
from pocketglm.package.encoding import LinearEntry, TensorEntry, VectorEntry

Operator = dict[str, Any]

MAX_SHORT_DIMENSION = 0xFFFF
"""Above it the header's sizes are int32 (`package/encoding.py`)."""


def point_at_weights(
    graph: JsonGraph, entries: Iterable[TensorEntry], norm_eps: float, rows_axis: int = 0
) -> JsonGraph:
    """A new graph in which every placeholder reads its tensor.

    `rows_axis` is where a linear layer's rows stand in [rows, 1, n] (0) or [1, rows, n] (1).
    """
    writer = _Writer(graph["tensorName"], {entry.name: entry for entry in entries}, norm_eps, rows_axis)
    for op in graph["oplists"]:
        if op["type"] == "Extra":
            writer.replace(op)
        else:
            writer.operators.append(op)
    return {
        **graph,
        "oplists": writer.operators,
        "tensorName": writer.tensor_names,
        "tensorNumber": len(writer.tensor_names),
    }


class _Writer:
    """Collects the operators and tensor names of the new graph."""

    def __init__(
        self,
        tensor_names: Iterable[str],
        entries: Mapping[str, TensorEntry],
        norm_eps: float,
        rows_axis: int,
    ) -> None:
        self.operators: list[Operator] = []
        self.tensor_names = list(tensor_names)
        self._entries = entries
        self._norm_eps = norm_eps
        self._rows_axis = rows_axis

    def replace(self, op: Operator) -> None:
        """Write what stands for one placeholder."""
        attributes = {item["key"]: item for item in op["main"]["attr"]}
        name, kind = attributes["name"]["s"], op["main"]["type"]
        (source,), (target,) = op["inputIndexes"], op["outputIndexes"]
        if kind == "Norm":
            self._norm(name, bool(attributes["rms"].get("i", 0)), source, target)
        elif kind == "Linear":
            self._linear(self._linear_entry(name), source, target)
        else:
            raise EngineError(f"the graph holds an operator that MNN does not know: {kind}")

    def _norm(self, name: str, rms: bool, source: int, target: int) -> None:
        weight, bias = (self._entries.get(f"{name}.{part}") for part in ("weight", "bias"))
        if not isinstance(weight, VectorEntry):
            raise PackageError(f"the package has no {name}.weight")
        if bias is not None and bias.offset != weight.end:
            raise PackageError(
                f"{name}.bias is at {bias.offset}, MNN needs it right after the weight, at {weight.end}",
                hint="convert the checkpoint again",
            )
        sizes = [4 * entry.shape[0] if entry is not None else 0 for entry in (weight, bias)]
        main = {
            "axis": [-1],
            "epsilon": self._norm_eps,
            "group": 1,
            "useRMSNorm": rms,
            "external": [weight.offset, *sizes],
        }
        self._add("LayerNorm", "LayerNorm", name, [source], main, target)

    def _linear(self, entry: LinearEntry, source: int, target: int) -> None:
        """Rows as a picture of one pixel each, padded to the stored inputs, through a 1x1 convolution."""
        (outputs, inputs), name = entry.shape, entry.name
        dims = {"dims": [-1, inputs, 1, 1], "dimType": "NCHW"}
        current = self._add("Reshape", "Reshape", f"{name}/rows", [source], dims)
        if entry.stored_inputs != inputs:
            pads = self._padding(name, entry.stored_inputs - inputs)
            mode = {"mode": "CONSTANT"}
            current = self._add("Padding", "PadParam", f"{name}/padded", [current, pads], mode)
        current = self._convert(f"{name}/packed", current, "NCHW", "NC4HW4")
        current = self._add("Convolution", "Convolution2D", name, [current], convolution(entry))
        current = self._convert(f"{name}/unpacked", current, "NC4HW4", "NCHW")
        shape = [1, -1, outputs] if self._rows_axis == 1 else [-1, 1, outputs]
        dims = {"dims": shape, "dimType": "NCHW"}
        self._add("Reshape", "Reshape", f"{name}/output", [current], dims, target)

    def _padding(self, name: str, columns: int) -> int:
        """A constant: nothing before, and only inputs after."""
        pads = {
            "dims": [4, 2],
            "dataFormat": "NCHW",
            "dataType": "DT_INT32",
            "int32s": [0, 0, 0, columns, 0, 0, 0, 0],
        }
        return self._add("Const", "Blob", f"{name}/pads", [], pads)

    def _convert(self, name: str, source: int, old: str, new: str) -> int:
        return self._add("ConvertTensor", "TensorConvertInfo", name, [source], {"source": old, "dest": new})

    def _add(
        self, kind: str, main_type: str, name: str, inputs: list[int], main: object, output: int | None = None
    ) -> int:
        """Append an operator. Returns the index of its output, a new tensor unless `output` names one."""
        if output is None:
            self.tensor_names.append(name)
            output = len(self.tensor_names) - 1
        operator: Operator = {
            "type": kind,
            "name": name,
            "main_type": main_type,
            "main": main,
            "outputIndexes": [output],
            "defaultDimentionFormat": "NCHW",
        }
        self.operators.append(operator | ({"inputIndexes": inputs} if inputs else {}))
        return output

    def _linear_entry(self, name: str) -> LinearEntry:
        entry = self._entries.get(name)
        if not isinstance(entry, LinearEntry):
            raise PackageError(f"the package has no linear layer {name}")
        return entry


def convolution(entry: LinearEntry) -> dict[str, Any]:
    """MNN's `Convolution2D` of a linear layer, its weights at the entry's place."""
    return {
        "common": {
            "kernelX": 1,
            "kernelY": 1,
            "strideX": 1,
            "strideY": 1,
            "dilateX": 1,
            "dilateY": 1,
            "padX": 0,
            "padY": 0,
            "padMode": "CAFFE",
            "group": 1,
            "outputCount": entry.shape[0],
            "inputCount": entry.stored_inputs,
            "relu": False,
            "relu6": False,
            "hasOutputShape": False,
        },
        **_storage(entry),
    }


def _storage(entry: LinearEntry) -> dict[str, Any]:
    """Where the weights lie and how they are coded."""
    weight_bytes = entry.header_bytes + entry.codes_bytes
    if entry.format.bits == 32:
        return {"external": [entry.offset, weight_bytes, entry.bias_bytes]}
    external = [entry.offset, weight_bytes, entry.alpha_bytes, entry.bias_bytes, 0]
    if entry.format.bits == 16:
        return {"external": external, "quanParameter": {"type": 3, "quantScale": 1.0}}
    symmetric = entry.format.symmetric
    outputs, inputs = entry.shape
    quantization = {
        "type": 1,
        "quantScale": 1.0,
        "aMaxOrBits": entry.format.bits,
        "aMin": 0 if symmetric else 1,  # an asymmetric layer without it loses its zeros
        "readType": 0 if symmetric else outputs * entry.format.groups(inputs),
        "has_scaleInt": False,  # true makes MNN read past its buffers
        "shapeInt32": max(outputs, entry.stored_inputs) > MAX_SHORT_DIMENSION,
        "scaleStorage": "FP16",
    }
    return {"external": external, "quanParameter": quantization}
