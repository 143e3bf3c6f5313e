"""MNN's language-model runtime (`MNN.llm`) on a directory made by `pocketglm export --format mnn-llm`.

The same module runs the wheel from PyPI and a build from source: the one that the interpreter finds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from peers.one_sequence import OneSequence
from peers.task import Task


def version() -> str:
    import _mnncengine

    return str(_mnncengine.version())


class Mnn(OneSequence):
    """As the directory asks: int4 weights expanded in the kernels, 8-bit activations, one scale a row."""

    def __init__(self, task: Task) -> None:
        import _mnncengine.llm as engine  # the wrapper in MNN.llm hides whether loading worked

        self._model: Any = engine.create(str(Path(task.model) / "config.json"))
        settings = {"thread_num": task.threads, "sampler_type": "greedy", "precision": "low"}
        self._model.set_config(json.dumps(settings | task.settings))
        if not self._model.load():
            raise RuntimeError("MNN could not load the model")
        self._model.generate_init()

    def restart(self) -> None:
        self._model.reset()
        self._model.generate_init()

    def run(self, tokens: list[int]) -> Any:
        # Reading the logits also waits for MNN to be done
        return np.array(self._model.forward(tokens).read(), np.float32).reshape(-1)


def load(task: Task) -> Mnn:
    return Mnn(task)
