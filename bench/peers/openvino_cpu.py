"""OpenVINO's CPU plugin on a stateful model with compressed weights, called as OpenVINO GenAI calls it.

GenAI's pipelines add a tokenizer and sampling around the same compiled model; without them nothing but
the model is timed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from peers.task import Task


def version() -> str:
    import openvino

    return str(openvino.__version__).partition("-")[0]


class OpenVino:
    """`settings` are properties of the CPU plugin. The hint LATENCY means one stream with all threads."""

    most_sequences = 64

    def __init__(self, task: Task) -> None:
        import openvino as ov

        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": str(task.threads),
            **task.settings,
        }
        compiled = ov.Core().compile_model(Path(task.model) / "openvino_model.xml", "CPU", properties)
        self._request = compiled.create_infer_request()
        self._length = 0

    def prefill(self, tokens: list[int]) -> list[float]:
        return [float(x) for x in self._start([tokens])[0, :1024]]

    def decode(self, token: int) -> int:
        return self.decode_sequences([token])[0]

    def start_sequences(self, prompts: list[list[int]]) -> None:
        self._start(prompts)

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        return [int(i) for i in self._run([[token] for token in tokens]).argmax(axis=1)]

    def _start(self, prompts: list[list[int]]) -> Any:
        self._request.reset_state()
        self._length = 0
        return self._run(prompts)

    def _run(self, rows: list[list[int]]) -> Any:
        """Logits of each sequence's last token, [sequences, vocabulary]."""
        ids = np.array(rows, np.int64)
        positions = np.arange(self._length, self._length + ids.shape[1])
        self._length += ids.shape[1]
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones((len(ids), self._length), np.int64),
            "position_ids": np.broadcast_to(positions, ids.shape).copy(),
            "beam_idx": np.arange(len(ids), dtype=np.int32),
        }
        return next(iter(self._request.infer(inputs).values()))[:, -1]


def load(task: Task) -> OpenVino:
    return OpenVino(task)
