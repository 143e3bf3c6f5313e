"""MNN-LLM directories as a source: our own export, and those of MNN's exporter for some families.

Enters: a directory with `llm.mnn`. Leaves: an open checkpoint. Our own carries the model's settings in
`pocketglm.json`, and its tensors have canonical names; the others are presented like the Hugging Face
checkpoint they were made from (see `mnn_llm_names.py`). int4 and int8 codes can be read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.checkpoint.elements import PLAIN_TYPES, ElementType, RawBytes
from pocketglm.checkpoint.files import DataFile, opened_files, read_json_object
from pocketglm.checkpoint.mnn_llm_graph import Graph, LinearPlace, NormPlace, read_graph
from pocketglm.checkpoint.mnn_llm_names import describe_export
from pocketglm.checkpoint.source import Float32, TensorInfo
from pocketglm.checkpoint.stored import Placement, StoredCheckpoint
from pocketglm.checkpoint.stored_codes import CodeFormat, StoredCodes
from pocketglm.errors import CheckpointError, UnsupportedModelError

FORMAT = "mnn-llm"
CONFIG_FILE, MODEL_FILE, STAMP_FILE = "config.json", "llm_config.json", "pocketglm.json"
STAMP_FORMAT, STAMP_VERSION = "pocketglm-mnn-llm", 1
FLOAT32 = PLAIN_TYPES["F32"]


def is_mnn_llm(path: Path) -> bool:
    """Whether `path` is a directory of this kind."""
    return (path / MODEL_FILE).is_file() and (path / CONFIG_FILE).is_file()


@dataclass(frozen=True)
class QuantizedPlacement:
    """A quantized matrix [rows, columns] in the weight file; codes, then scales."""

    info: TensorInfo
    data: DataFile
    place: LinearPlace
    groups: int

    @property
    def header_bytes(self) -> int:
        wide = max(self.place.outputs, self.place.inputs) > 0xFFFF
        return 1 + (8 if wide else 4) + 1 + (1 << self.place.bits)

    @property
    def row_bytes(self) -> int:
        return self.place.inputs * self.place.bits // 8

    @property
    def alpha_values(self) -> int:
        return 1 if self.place.symmetric else 2

    def codes(self, start: int, count: int) -> NDArray[np.uint8]:
        offset = self.place.offset + self.header_bytes + start * self.row_bytes
        raw = self.data.read(offset, count * self.row_bytes, f"tensor {self.info.name}")
        return np.frombuffer(raw, np.uint8).reshape(count, self.row_bytes)

    def alpha(self, start: int, count: int) -> NDArray[np.floating]:
        """Scales and zeros [count, groups, 1 or 2], float16 or float32 as stored."""
        dtype = np.dtype("<f4" if self.place.wide_scales else "<f2")
        row = self.groups * self.alpha_values * dtype.itemsize
        offset = self.place.offset + self.place.sizes[0] + start * row
        raw = self.data.read(offset, count * row, f"scales of tensor {self.info.name}")
        return np.frombuffer(raw, dtype).reshape(count, self.groups, self.alpha_values)


@dataclass
class MnnLlmCheckpoint(StoredCheckpoint):
    """See `source.Checkpoint` and `stored_codes.QuantizedCheckpoint`."""

    quantized: Mapping[str, QuantizedPlacement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        infos = {name: placement.info for name, placement in self.quantized.items()}
        self.tensors = {**self.tensors, **infos}

    def read(self, name: str, start: int = 0, count: int | None = None) -> Float32:
        placement = self.quantized.get(name)
        if placement is None:
            return super().read(name, start, count)
        count = placement.info.shape[0] - start if count is None else count
        _check_rows(placement, start, count)
        return _dequantize(placement, start, count)

    def code_format(self, name: str) -> CodeFormat | None:
        placement = self.quantized.get(name)
        if placement is None:
            return None
        place = placement.place
        return CodeFormat(place.bits, place.inputs, placement.groups, place.symmetric)

    def read_codes(self, name: str, start: int, count: int) -> StoredCodes:
        placement = self.quantized[name]
        _check_rows(placement, start, count)
        alpha = placement.alpha(start, count)
        with np.errstate(over="ignore"):
            narrow: NDArray[np.float16] = alpha.astype(np.float16)
        if not np.array_equal(narrow.astype(np.float32), alpha.astype(np.float32), equal_nan=True):
            raise UnsupportedModelError(
                f"tensor {name} has float32 scales that float16 does not hold",
                where=placement.info.file,
                hint="convert with --bits 16, or export the model again with 16-bit scales",
            )
        return StoredCodes(placement.codes(start, count), narrow)


def open_mnn_llm(path: Path) -> MnnLlmCheckpoint:
    """Open the directory.

    Raises `CheckpointError`, and `UnsupportedModelError` for what cannot be read exactly.
    """
    settings = read_json_object(path / CONFIG_FILE)
    model = read_json_object(path / MODEL_FILE)
    graph_file = _named(path, settings, "llm_model", "llm.mnn")
    try:
        graph = read_graph(graph_file)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(error.message, where=graph_file, hint=error.hint) from None
    with opened_files() as files:
        weights = files.open(_named(path, settings, "llm_weight", "llm.mnn.weight"))
        reader = _Reader(path, weights, files.open(graph_file))
        if (path / STAMP_FILE).is_file():
            config = _read_own(reader, graph, read_json_object(path / STAMP_FILE))
        else:
            config = _read_foreign(reader, graph, model, settings)
        reader.place_embedding(files.open(_embedding_file(path, settings, model)), model, config)
        return MnnLlmCheckpoint(FORMAT, path, path, config, reader.plain, files, {}, reader.quantized)


class _Reader:
    """Collects the placements of one directory."""

    def __init__(self, path: Path, weights: DataFile, graph: DataFile) -> None:
        self.path, self.weights, self._graph = path, weights, graph
        self.plain: dict[str, Placement] = {}
        self.quantized: dict[str, QuantizedPlacement] = {}

    def place_linear(self, name: str, place: LinearPlace, columns: int) -> None:
        """The weight of a linear layer; `columns` without padding."""
        shape = (place.outputs, columns)
        if place.bits >= 16:
            kind = PLAIN_TYPES["F16" if place.bits == 16 else "F32"]
            self._place_plain(f"{name}.weight", kind, shape, place.offset, self.weights)
            return
        size = place.sizes[0] + place.sizes[1]
        info = TensorInfo(f"{name}.weight", f"MNN-INT{place.bits}", shape, size, self.weights.path)
        groups = self._groups(info.name, place)
        placement = QuantizedPlacement(info, self.weights, place, groups)
        if place.sizes[0] != placement.header_bytes + place.outputs * placement.row_bytes:
            raise CheckpointError(f"tensor {info.name} has a malformed size", where=self.weights.path)
        _check_header(placement)
        self._check_range(info.name, place.offset, sum(place.sizes), self.weights)
        self.quantized[info.name] = placement

    def bias(self, name: str, place: LinearPlace, *, keep_zeros: bool) -> None:
        """The bias of a linear layer. MNN writes zeros where a layer has none."""
        if place.sizes[2] == 0:
            return
        offset = place.offset + place.sizes[0] + place.sizes[1]
        bias = f"{name}.bias"
        self._place_plain(bias, FLOAT32, (place.outputs,), offset, self.weights)
        raw = self.weights.read(offset, 4 * place.outputs, f"tensor {bias}")
        if not keep_zeros and not np.frombuffer(raw, "<f4").any():
            del self.plain[bias]

    def place_norm(self, name: str, norm: NormPlace) -> None:
        """A norm's weight, and its bias if there is one."""
        data = self._graph if norm.inside else self.weights
        weight, bias = norm.sizes
        self._place_plain(f"{name}.weight", FLOAT32, (weight // 4,), norm.offset, data)
        if bias:
            self._place_plain(f"{name}.bias", FLOAT32, (bias // 4,), norm.offset + weight, data)

    def place_embedding(self, data: DataFile, model: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Embedding rows: bfloat16 in their own file, or float16 or quantized in the weight file."""
        name, head = config["embedding_name"], config["head_name"]
        rows, columns = config["vocab_size"], config["hidden_size"]
        tied = model.get("tie_embeddings")
        if tied is None:
            width = model.get("hidden_size", columns)
            parts = width // columns if isinstance(width, int) and width % columns == 0 else 0
            if parts not in (1, 3):
                raise CheckpointError(
                    f"hidden_size is {width!r} in {MODEL_FILE}, expected {columns}", where=self.path
                )
            kind = PLAIN_TYPES["BF16"] if parts == 1 else _summed(parts, columns)
            self._place_plain(f"{name}.weight", kind, (rows, columns), 0, data)
            return
        if not isinstance(tied, dict):
            raise UnsupportedModelError(
                "tie_embeddings is a list, from an old release", where=self.path / MODEL_FILE
            )
        if tied.get("quant_bit") == 16:
            offset = tied.get("weight_offset", 0)
            self._place_plain(f"{name}.weight", PLAIN_TYPES["F16"], (rows, columns), offset, self.weights)
            return
        shared = self.quantized.get(f"{head}.weight")
        if shared is None or tied.get("weight_offset") != shared.place.offset + shared.header_bytes:
            raise UnsupportedModelError(
                "the embedding is quantized apart from the head, which cannot be read exactly",
                where=self.path / MODEL_FILE,
            )
        info = TensorInfo(
            f"{name}.weight", shared.info.dtype, shared.info.shape, shared.info.size, shared.info.file
        )
        self.quantized[info.name] = QuantizedPlacement(info, shared.data, shared.place, shared.groups)

    def _groups(self, name: str, place: LinearPlace) -> int:
        row = (4 if place.wide_scales else 2) * (1 if place.symmetric else 2)
        groups, rest = divmod(place.sizes[1], max(1, place.outputs * row))
        if rest or groups == 0 or place.inputs % groups:
            raise CheckpointError(f"tensor {name} has malformed scales", where=self.weights.path)
        return groups

    def _place_plain(
        self, name: str, kind: ElementType, shape: tuple[int, ...], offset: int, data: DataFile
    ) -> None:
        size = kind.byte_size(int(np.prod(shape)))
        self._check_range(name, offset, size, data)
        if name in self.plain or name in self.quantized:
            raise CheckpointError(f"tensor {name} appears twice", where=self.path)
        self.plain[name] = Placement(TensorInfo(name, kind.name, shape, size, data.path), kind, data, offset)

    def _check_range(self, name: str, offset: int, size: int, data: DataFile) -> None:
        if not isinstance(offset, int) or offset < 0 or size <= 0 or offset + size > data.size:
            raise CheckpointError(
                f"tensor {name} is cut short: {size} bytes at {offset} of {data.size}",
                where=data.path,
                hint="copy or export the directory again",
            )


def _read_own(reader: _Reader, graph: Graph, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Place the tensors of our own export. Returns the checkpoint's configuration."""
    where = reader.path / STAMP_FILE
    if stamp.get("format") != STAMP_FORMAT or stamp.get("version") != STAMP_VERSION:
        raise CheckpointError(
            f"has the format {stamp.get('format')!r} {stamp.get('version')!r}, expected {STAMP_FORMAT!r} "
            f"{STAMP_VERSION}",
            where=where,
            hint="export the package again with this version",
        )
    model, columns = stamp.get("model"), stamp.get("padded", {})
    if not isinstance(model, dict) or not isinstance(columns, dict):
        raise CheckpointError("lacks the model's settings", where=where)
    for place in graph.linears:
        inputs = columns.get(place.name, place.inputs)
        if not isinstance(inputs, int) or not 0 < inputs <= place.inputs:
            raise CheckpointError(
                f"{place.name} has {inputs!r} inputs, at most {place.inputs} fit", where=where
            )
        reader.place_linear(place.name, place, inputs)
        reader.bias(place.name, place, keep_zeros=True)
    for norm in graph.norms:
        reader.place_norm(norm.name, norm)
    return {
        "model_type": "pocketglm",
        "embedding_name": "embedding",
        "head_name": "head",
        "vocab_size": _size(model, "vocab_size", where),
        "hidden_size": _size(model, "hidden_size", where),
        "spec": model,
        "generation": stamp.get("generation"),
        "chat_template": stamp.get("chat_template"),
    }


def _read_foreign(
    reader: _Reader, graph: Graph, model: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Place the tensors of MNN's own exporter. Returns the settings of a Hugging Face checkpoint."""
    described = describe_export(graph, model, settings, reader.path)
    for name, place in described.linears.items():
        reader.place_linear(name, place, place.inputs)
        reader.bias(name, place, keep_zeros=name in described.biased)
    for name, norm in described.norms.items():
        # MNN's exporter gives RMS norms a bias of zeros
        reader.place_norm(name, replace(norm, sizes=(norm.sizes[0], 0)))
    return described.config


def _named(path: Path, settings: Mapping[str, Any], key: str, default: str) -> Path:
    """A file that config.json names. It must lie in the directory."""
    name = settings.get(key, default)
    if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
        raise CheckpointError(f"{key} is {name!r}, expected the name of a file", where=path / CONFIG_FILE)
    if not (path / name).is_file():
        raise CheckpointError(f"names {name} as {key}, which is not there", where=path / CONFIG_FILE)
    return path / name


def _embedding_file(path: Path, settings: Mapping[str, Any], model: Mapping[str, Any]) -> Path:
    if "tie_embeddings" in model:
        return _named(path, settings, "llm_weight", "llm.mnn.weight")
    return _named(path, settings, "embedding_file", "embeddings_bf16.bin")


def _size(settings: Mapping[str, Any], key: str, where: Path) -> int:
    value = settings.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CheckpointError(f"{key} is {value!r}, expected a positive integer", where=where)
    return value


def _summed(parts: int, columns: int) -> ElementType:
    """Rows of bfloat16 `parts` times as wide, whose parts add up to float32 values."""

    def decode(raw: RawBytes, out: Float32) -> None:
        wide = raw.view("<u2").astype(np.uint32) << 16
        pieces = wide.view(np.float32).reshape(-1, parts, columns)
        rows = out.reshape(-1, columns)
        rows[:] = pieces[:, 0]
        for part in range(1, parts):
            rows += pieces[:, part]

    return ElementType(f"BF16x{parts}", columns, 2 * parts * columns, decode)


def _check_header(placement: QuantizedPlacement) -> None:
    """The codes' header must say what the graph says, its table must be the usual one."""
    place, levels = placement.place, 1 << placement.place.bits
    raw = placement.data.read(place.offset, placement.header_bytes, f"tensor {placement.info.name}")
    sizes = np.frombuffer(raw, "<i4" if max(place.outputs, place.inputs) > 0xFFFF else "<u2", 2, 1)
    table = np.frombuffer(raw, np.int8, levels, len(raw) - levels)
    usual = np.arange(-(levels // 2), levels // 2)
    if raw[0] != 2 or sizes.tolist() != [place.outputs, place.inputs] or not np.array_equal(table, usual):
        raise UnsupportedModelError(
            f"tensor {placement.info.name} has codes of another kind", where=placement.info.file
        )


def _check_rows(placement: QuantizedPlacement, start: int, count: int) -> None:
    rows = placement.info.shape[0]
    if start < 0 or count < 0 or start + count > rows:
        raise CheckpointError(
            f"tensor {placement.info.name} has {rows} rows, cannot read rows {start} to {start + count}",
            where=placement.info.file,
        )


def _dequantize(placement: QuantizedPlacement, start: int, count: int) -> Float32:
    """code * scale + zero, float32 [count, columns]."""
    codes, alpha = placement.codes(start, count), placement.alpha(start, count).astype(np.float32)
    if placement.place.bits == 4:
        pairs = np.stack([codes >> 4, codes & 15], axis=-1).reshape(count, -1)
        signed = pairs.astype(np.float32) - np.float32(8)
    else:
        signed = codes.astype(np.float32) - np.float32(128)
    grouped = signed.reshape(count, placement.groups, -1)
    grouped *= alpha[..., -1:]
    if not placement.place.symmetric:
        grouped += alpha[..., :1]
    return np.ascontiguousarray(grouped.reshape(count, -1)[:, : placement.info.shape[1]])
