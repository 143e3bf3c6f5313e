"""onnxruntime-genai's generator on the CPU: the logits of each step are read, its sampler is not used."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from peers.task import Task


def version() -> str:
    import onnxruntime_genai

    return str(onnxruntime_genai.__version__)


class OnnxRuntime:
    most_sequences = 1

    def __init__(self, task: Task) -> None:
        import onnxruntime_genai as genai

        config = genai.Config(task.model)
        options = {"intra_op_num_threads": task.threads, **task.settings}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._genai, self._model = genai, genai.Model(config)
        self._room = task.longest
        self._generator: Any = None

    def prefill(self, tokens: list[int]) -> list[float]:
        settings = self._genai.GeneratorParams(self._model)
        settings.set_search_options(max_length=self._room, do_sample=False)
        self._generator = self._genai.Generator(self._model, settings)
        return [float(x) for x in self._run(tokens)[:1024]]

    def decode(self, token: int) -> int:
        return int(self._run([token]).argmax())

    def start_sequences(self, prompts: list[list[int]]) -> None:
        self.prefill(prompts[0])

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        return [self.decode(tokens[0])]

    def _run(self, tokens: list[int]) -> Any:
        self._generator.append_tokens(np.array([tokens], np.int32))
        return np.asarray(self._generator.get_logits()).reshape(-1)


def load(task: Task) -> OnnxRuntime:
    return OnnxRuntime(task)
