"""onnxruntime-genai's generator on the CPU: the logits of each step are read, its sampler is not used."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from peers.one_sequence import OneSequence
from peers.task import Task


def version() -> str:
    import onnxruntime_genai

    return str(onnxruntime_genai.__version__)


class OnnxRuntime(OneSequence):
    def __init__(self, task: Task) -> None:
        import onnxruntime_genai as genai

        config = genai.Config(task.model)
        options = {"intra_op_num_threads": task.threads, **task.settings}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._genai, self._model = genai, genai.Model(config)
        self._room = task.longest
        self._generator: Any = None

    def restart(self) -> None:
        settings = self._genai.GeneratorParams(self._model)
        settings.set_search_options(max_length=self._room, do_sample=False)
        self._generator = self._genai.Generator(self._model, settings)

    def run(self, tokens: list[int]) -> Any:
        self._generator.append_tokens(np.array([tokens], np.int32))
        return np.asarray(self._generator.get_logits()).reshape(-1)


def load(task: Task) -> OnnxRuntime:
    return OnnxRuntime(task)
