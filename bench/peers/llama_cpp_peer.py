"""llama.cpp through the low-level interface of llama-cpp-python: no Python in its loops but ours."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from peers.task import Task


def version() -> str:
    import llama_cpp

    features = llama_cpp.llama_print_system_info().decode()
    wide = "with AVX-512" if "AVX512_VNNI = 1" in features else "without AVX-512"
    return f"{llama_cpp.__version__} {wide}"


class LlamaCpp:
    """`n_batch` 2048 and `n_ubatch` 512 are llama.cpp's defaults, so is its choice of flash attention."""

    most_sequences = 8

    def __init__(self, task: Task) -> None:
        import llama_cpp

        self._api = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            task.model.encode(), llama_cpp.llama_model_default_params()
        )
        settings = llama_cpp.llama_context_default_params()
        together = max(task.sequences, default=1)
        settings.n_seq_max = together
        room = max(task.longest, 16 + task.new_tokens + 2)
        settings.n_ctx = together * (-(-room // 256) * 256) if together > 1 else -(-room // 256) * 256
        settings.kv_unified = True
        settings.n_threads = settings.n_threads_batch = task.threads
        self._context = llama_cpp.llama_init_from_model(model, settings)
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch = llama_cpp.llama_batch_init(2048, 0, 1)
        self._lengths = [0]

    def prefill(self, tokens: list[int]) -> list[float]:
        self._clear(1)
        return [float(x) for x in self._run_prompt(0, tokens)[:1024]]

    def decode(self, token: int) -> int:
        return self.decode_sequences([token])[0]

    def start_sequences(self, prompts: list[list[int]]) -> None:
        self._clear(len(prompts))
        for sequence, prompt in enumerate(prompts):
            self._run_prompt(sequence, prompt)

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        rows = [(token, self._lengths[i], i, True) for i, token in enumerate(tokens)]
        self._run(rows)
        return [int(self._logits(i).argmax()) for i in range(len(tokens))]

    def _clear(self, count: int) -> None:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), False)
        self._lengths = [0] * count

    def _run_prompt(self, sequence: int, tokens: list[int]) -> Any:
        last = 0
        for start in range(0, len(tokens), 2048):
            piece = tokens[start : start + 2048]
            last = len(piece) - 1
            self._run([(t, start + i, sequence, start + i + 1 == len(tokens)) for i, t in enumerate(piece)])
        return self._logits(last)

    def _run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Rows are (token, position, sequence, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            self._lengths[sequence] = position + 1
        if self._api.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def _logits(self, row: int) -> Any:
        pointer = self._api.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, (self._vocabulary,))


def load(task: Task) -> LlamaCpp:
    return LlamaCpp(task)
