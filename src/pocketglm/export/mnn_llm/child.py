"""The process that `MNN.llm` runs in: requests come on standard input, answers go to standard output.

Enters: one JSON object a line, with the name of a command and its arguments. Leaves: one JSON object a
line; where it has a `shape`, that many float32 follow it as bytes. Everything MNN prints goes to
standard error. The process ends without cleaning up, because the library may crash when it does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, BinaryIO


def main() -> None:
    """Answer requests until `close` or the end of the input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # MNN prints to standard output from its import on
    session = _Session()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        command = request.pop("command")
        if command == "close":
            break
        _send(answers, *_answer(session, command, request))
    answers.flush()
    os._exit(0)


def _answer(session: _Session, command: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        return getattr(session, f"do_{command}")(**arguments)  # type: ignore[no-any-return]
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, b""


def _send(stream: BinaryIO, answer: dict[str, Any], data: bytes) -> None:
    stream.write(json.dumps(answer).encode() + b"\n" + data)
    stream.flush()


class _Session:
    """One loaded model. Every `do_` method is a command; it returns the answer and its binary data."""

    def do_load(self, config_file: str, settings: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        import _mnncengine.llm as engine  # the wrapper in MNN.llm hides whether loading worked

        before, start = _memory()["resident_bytes"], time.perf_counter()
        self._model = engine.create(config_file)
        self._model.set_config(json.dumps(settings))
        loaded = bool(self._model.load())
        self._model.generate_init()
        seconds = time.perf_counter() - start
        return {"loaded": loaded, "seconds": seconds, "resident_before": before, **_memory()}, b""

    def do_forward(self, ids: list[int]) -> tuple[dict[str, Any], bytes]:
        import numpy as np

        start = time.perf_counter()
        # A copy: read() gives a view of memory that belongs to MNN
        logits = np.array(self._model.forward(ids).read(), np.float32)
        seconds = time.perf_counter() - start
        rows = logits.reshape(-1, logits.shape[-1])
        return {"shape": list(rows.shape), "seconds": seconds}, rows.tobytes()

    def do_generate(self, ids: list[int], count: int) -> tuple[dict[str, Any], bytes]:
        self.do_reset()
        return {"ids": [int(token) for token in self._model.generate(ids, count)]}, b""

    def do_reset(self) -> tuple[dict[str, Any], bytes]:
        self._model.reset()
        self._model.generate_init()
        return {}, b""

    def do_encode(self, texts: list[str]) -> tuple[dict[str, Any], bytes]:
        return {"ids": [[int(token) for token in self._model.tokenizer_encode(text)] for text in texts]}, b""

    def do_decode(self, ids: list[int]) -> tuple[dict[str, Any], bytes]:
        return {"pieces": [self._piece(token).hex() for token in ids]}, b""

    def do_template(self, messages: list[dict[str, str]]) -> tuple[dict[str, Any], bytes]:
        return {"text": self._model.apply_chat_template(messages)}, b""

    def do_memory(self) -> tuple[dict[str, Any], bytes]:
        return dict(_memory()), b""

    def _piece(self, token: int) -> bytes:
        """The bytes of one token. A piece of a character is not text, but the error carries it."""
        try:
            text: str = self._model.tokenizer_decode(token)
        except UnicodeDecodeError as error:
            return bytes(error.object)
        return text.encode()


def _memory() -> dict[str, int]:
    """Resident and peak memory of this process in bytes."""
    import psutil

    information = psutil.Process().memory_info()
    return {"resident_bytes": int(information.rss), "peak_bytes": _peak_bytes(information)}


def _peak_bytes(information: Any) -> int:
    if hasattr(information, "peak_wset"):  # Windows
        return int(information.peak_wset)
    try:
        with open("/proc/self/status") as file:  # getrusage would count the parent's memory too
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
