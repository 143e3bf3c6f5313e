"""A Llama model for onnxruntime-genai: the graph that its own builder makes for int4 on a CPU.

Enters: a shape. Leaves: `model.onnx`, its weights in `model.onnx.data`, and `genai_config.json`. Matrices are
MatMulNBits (4 bits, groups of 64, 8-bit activations), attention is GroupQueryAttention with the rotary
embedding in it, and the cache is inputs and outputs that share their memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from peers.shape import NORM_EPS, ROPE_BASE, Shape
from peers.weights import GROUP, embedding, pattern, tiled, tiles

INT8_ACTIVATIONS = 4  # accuracy_level of MatMulNBits
DATA = "model.onnx.data"
DOMAIN = "com.microsoft"


def write_onnx(path: Path, shape: Shape) -> Path:
    """Write the model into the new folder `path`."""
    path.mkdir(parents=True)
    with open(path / DATA, "wb") as data:
        graph = _Graph(shape, data)
        model = graph.model()
    (path / "model.onnx").write_bytes(model.SerializeToString())
    (path / "genai_config.json").write_text(json.dumps(genai_config(shape), indent=1))
    return path


def genai_config(shape: Shape) -> dict[str, Any]:
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": shape.head_dim,
        "hidden_size": shape.hidden,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.blocks,
        "num_key_value_heads": shape.kv_heads,
    }
    model = {
        "type": "llama",
        "vocab_size": shape.vocabulary,
        "context_length": shape.max_context,
        "bos_token_id": 0,
        "eos_token_id": shape.vocabulary - 1,
        "pad_token_id": 0,
        "decoder": decoder,
    }
    return {"model": model, "search": {"past_present_share_buffer": True, "max_length": shape.max_context}}


class _Graph:
    def __init__(self, shape: Shape, data: IO[bytes]) -> None:
        from onnx import TensorProto, helper

        self.shape, self.data, self.helper, self.types = shape, data, helper, TensorProto
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def model(self) -> Any:
        shape, helper = self.shape, self.helper
        rows = np.concatenate(list(embedding(shape.vocabulary, shape.hidden)))
        self._weight("embedding", rows)
        self._weight("one", np.array(1, np.int64))
        self._weight("ones", np.ones(shape.hidden, np.float32))
        self._rotation()
        self._lengths()
        hidden = self._node("Gather", ["embedding", "input_ids"], "hidden")
        for index in range(shape.blocks):
            hidden = self._block(index, hidden)
        normed = self._norm("final", hidden)
        self._weight("last", np.array([-1], np.int64))
        last = self._node("Gather", [normed, "last"], "last_hidden", axis=1)
        self._linear("head", shape.vocabulary, shape.hidden, last, "logits")
        graph = helper.make_graph(self.nodes, "llama", self._inputs(), self._outputs(), self.weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _block(self, index: int, hidden: str) -> str:
        shape, stem = self.shape, f"block_{index:02d}."
        sizes = shape.block_matrices()

        def linear(name: str, x: str) -> str:
            return self._linear(stem + name, *sizes[name], x, f"{stem}{name}.out")

        x = self._norm(f"{stem}input", hidden)
        mixed = self._attention(index, [linear(name, x) for name in "qkv"])
        hidden = self._node("Add", [hidden, linear("o", mixed)], f"{stem}middle")
        x = self._norm(f"{stem}mlp", hidden)
        gate, up = linear("gate", x), linear("up", x)
        sigmoid = self._node("Sigmoid", [gate], f"{stem}sigmoid")
        active = self._node("Mul", [gate, sigmoid], f"{stem}active")
        product = self._node("Mul", [active, up], f"{stem}product")
        return self._node("Add", [hidden, linear("down", product)], f"{stem}output")

    def _attention(self, index: int, parts: list[str]) -> str:
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        present = [f"present.{index}.{part}" for part in ("key", "value")]
        node = self.helper.make_node(
            "GroupQueryAttention",
            [*parts, *past, "seqlens_k", "total_length", "cos", "sin"],
            [f"attention.{index}", *present],
            domain=DOMAIN,
            num_heads=self.shape.heads,
            kv_num_heads=self.shape.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        self.nodes.append(node)
        return f"attention.{index}"

    def _linear(self, name: str, rows: int, inputs: int, x: str, out: str) -> str:
        part = pattern(name, rows, inputs)
        packed = part.codes[:, ::2] | (part.codes[:, 1::2] << 4)
        blocks = packed.reshape(len(packed), inputs // GROUP, GROUP // 2)
        scales = tiled(part.scales.astype(np.float32), rows)
        self._weight(f"{name}.codes", blocks, rows)
        self._weight(f"{name}.scales", scales.reshape(-1))
        sizes = {"K": inputs, "N": rows, "bits": 4, "block_size": GROUP}
        names = [x, f"{name}.codes", f"{name}.scales"]
        options = {**sizes, "accuracy_level": INT8_ACTIVATIONS, "domain": DOMAIN}
        return self._node("MatMulNBits", names, out, **options)

    def _norm(self, name: str, x: str) -> str:
        return self._node("SimplifiedLayerNormalization", [x, "ones"], f"{name}.norm", epsilon=NORM_EPS)

    def _rotation(self) -> None:
        size = self.shape.head_dim
        frequency = ROPE_BASE ** -(np.arange(0, size, 2) / size)
        angles = np.arange(self.shape.max_context)[:, None] * frequency
        self._weight("cos", np.cos(angles).astype(np.float32))
        self._weight("sin", np.sin(angles).astype(np.float32))

    def _lengths(self) -> None:
        """What GroupQueryAttention is told: the last position of each sequence, and the whole length."""
        self._weight("axis", np.array([1], np.int64))
        total = self._node("ReduceSum", ["attention_mask", "axis"], "mask_sum", keepdims=0)
        less = self._node("Sub", [total, "one"], "last_position")
        self._node("Cast", [less], "seqlens_k", to=self.types.INT32)
        shape = self._node("Shape", ["attention_mask"], "mask_shape")
        length = self._node("Gather", [shape, "one"], "mask_length", axis=0)
        self._node("Cast", [length], "total_length", to=self.types.INT32)

    def _inputs(self) -> list[Any]:
        kind, info = self.types, self.helper.make_tensor_value_info
        ids = [info("input_ids", kind.INT64, ["batch", "rows"])]
        mask = [info("attention_mask", kind.INT64, ["batch", "total"])]
        return ids + mask + self._cache("past_key_values", "past")

    def _outputs(self) -> list[Any]:
        sizes: list[str | int | None] = ["batch", 1, self.shape.vocabulary]
        logits = self.helper.make_tensor_value_info("logits", self.types.FLOAT, sizes)
        return [logits, *self._cache("present", "total")]

    def _cache(self, stem: str, length: str) -> list[Any]:
        sizes: list[str | int | None] = ["batch", self.shape.kv_heads, length, self.shape.head_dim]
        return [
            self.helper.make_tensor_value_info(f"{stem}.{i}.{part}", self.types.FLOAT, sizes)
            for i in range(self.shape.blocks)
            for part in ("key", "value")
        ]

    def _node(self, operator: str, inputs: list[str], output: str, **options: Any) -> str:
        self.nodes.append(self.helper.make_node(operator, inputs, [output], **options))
        return output

    def _weight(self, name: str, values: NDArray[Any], rows: int = 0) -> None:
        """A constant in the data file; the pattern `values` over `rows` rows, or once."""
        from onnx import TensorProto
        from onnx.helper import np_dtype_to_tensor_dtype

        tensor = TensorProto(name=name, data_type=np_dtype_to_tensor_dtype(values.dtype))
        tensor.dims.extend([rows, *values.shape[1:]] if rows else values.shape)
        if values.size < 16:
            tensor.raw_data = values.tobytes()
        else:
            self.data.write(bytes(-self.data.tell() % 4096))
            start = self.data.tell()
            for piece in tiles(values, rows) if rows else [values]:
                self.data.write(np.ascontiguousarray(piece).data)
            place = {"location": DATA, "offset": start, "length": self.data.tell() - start}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensor.data_location = TensorProto.EXTERNAL
        self.weights.append(tensor)
