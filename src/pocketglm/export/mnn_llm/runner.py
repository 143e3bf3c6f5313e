"""`MNN.llm` behind a pipe.

Enters: an MNN-LLM directory. Leaves: logits, tokens and texts from MNN's own engine. It runs in a child
process, so that whatever it prints, however long it takes and however it ends, the caller gets an answer
or an `EngineError`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import EngineError, InputError

Float32 = NDArray[np.float32]
START_CHILD = "import sys, runpy; sys.path.pop(0); runpy.run_path(sys.argv[1])['main']()"
"""Runs one file alone, and looks for no module in the current folder."""

NOISE_BYTES = 2000
"""The end of what MNN printed, as an error shows it."""


class MnnLlm:
    """An MNN-LLM directory, loaded by the `MNN.llm` of the installed wheel. A context manager.

    `settings` overrule those of the directory's config.json; with `all_logits` every row of `forward` has
    logits, else the last one only. `timeout` is in seconds, for each call. Raises `EngineError`.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        threads: int = 2,
        all_logits: bool = False,
        settings: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
    ) -> None:
        self._directory = Path(directory).resolve()
        self._timeout = timeout
        config = self._directory / "config.json"
        if not config.is_file():
            raise EngineError("no MNN-LLM directory here (config.json not found)", where=directory)
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-c", START_CHILD, str(Path(__file__).with_name("child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            cwd=self._directory,
        )
        self.forward_seconds = 0.0
        chosen = {
            "thread_num": threads,
            "sampler_type": "greedy",
            "precision": "high",
            "all_logits": all_logits,
            **(settings or {}),
        }
        try:
            self.loading = self._ask("load", config_file=str(config), settings=chosen)
            if not self.loading["loaded"]:
                raise self._error("MNN cannot load this directory")
        except BaseException:
            self.close()
            raise

    def forward(self, ids: Sequence[int]) -> Float32:
        """Append tokens to the sequence; logits [rows, vocab] (one row, or len(ids) with `all_logits`).

        `forward_seconds` holds the time that MNN took.
        """
        if len(ids) == 0:
            raise InputError("no tokens to run", hint="pass at least one token id")
        answer, data = self._exchange("forward", ids=[int(token) for token in ids])
        self.forward_seconds = float(answer["seconds"])
        return np.frombuffer(data, np.float32).reshape(answer["shape"])

    def reset(self) -> None:
        """Forget the sequence."""
        self._ask("reset")

    def generate(self, ids: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens after the prompt `ids`, as MNN's own loop makes them."""
        return list(self._ask("generate", ids=[int(token) for token in ids], count=count)["ids"])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, as MNN's tokenizer makes them."""
        return list(self._ask("encode", texts=list(texts))["ids"])

    def decode(self, ids: Sequence[int]) -> bytes:
        """The pieces of `ids` one after the other, as MNN's apps stream them: UTF-8, if `ids` are whole."""
        return b"".join(map(bytes.fromhex, self._ask("decode", ids=[int(token) for token in ids])["pieces"]))

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that MNN's template engine makes of a conversation."""
        return str(self._ask("template", messages=[dict(message) for message in messages])["text"])

    def memory(self) -> dict[str, int]:
        """`resident_bytes` and `peak_bytes` of the child process."""
        return self._ask("memory")

    def close(self) -> None:
        """End the child process. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()  # nothing is lost, and the library's own clean-up may crash
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._noise):
            if stream is not None and not stream.closed:
                with suppress(BrokenPipeError):  # the rest of a request that a dead child never read
                    stream.close()

    def __enter__(self) -> MnnLlm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self._exchange(command, **arguments)[0]

    def _exchange(self, command: str, **arguments: Any) -> tuple[dict[str, Any], bytes]:
        """One request and its answer. A child that is too slow is ended, which ends the wait."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._timeout, give_up)
        timer.start()
        try:
            answer, data = self._transfer({"command": command, **arguments})
        except (OSError, ValueError):  # a broken pipe, or half an answer
            reason = f"no answer in {self._timeout:g} s" if late.is_set() else self._ending()
            raise self._error(f"MNN.llm failed at {command}: {reason}") from None
        finally:
            timer.cancel()
        if "error" in answer:
            raise self._error(f"MNN.llm failed at {command}: {answer['error']}")
        return answer, data

    def _transfer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        size = 4 * int(np.prod(answer["shape"])) if "shape" in answer else 0
        data = stdout.read(size)
        if len(data) != size:
            raise ValueError("the answer is cut short")
        return answer, data

    def _ending(self) -> str:
        code = self._process.wait()
        return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with {code}"

    def _error(self, message: str) -> EngineError:
        """An error that carries the end of what MNN printed."""
        self._noise.seek(0, 2)
        self._noise.seek(max(0, self._noise.tell() - NOISE_BYTES))
        printed = self._noise.read().decode("utf-8", "replace").strip().splitlines()[-4:]
        hint = "MNN printed: " + " / ".join(line.strip() for line in printed) if printed else None
        return EngineError(message, where=self._directory, hint=hint)
