"""A host whose phone, packages and engine are scripted, for what a real one does only when it fails.

The tokenizer has one token a byte, so that prompts and answers can be read. The last message chooses the
answer: `script:NAME` from `SCRIPTS`, anything else is answered in words.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from generate.test_template import CHATML, tokenizer_json
from pocketglm.generate.tokenizer import Tokenizer
from web.phone.page_host import PageHost

TOKENIZER_JSON = tokenizer_json(["<|im_start|>", "<|im_end|>"])
END = 257
TOKENIZER = Tokenizer.from_json(TOKENIZER_JSON)
GENERATION = {"do_sample": True, "temperature": 0.8, "eos_token_ids": [END], "stop": ["HALT"]}
FILES = {
    "tokenizer.json": TOKENIZER_JSON,
    "chat_template.jinja": CHATML,
    "generation.json": json.dumps(GENERATION),
}
MIB = 1 << 20
SCRIPTS = {
    "long": "".join(f"word{index} " for index in range(3000)),
    "halt": "before HALT after",
    "emoji": "你好 👨\u200d👩\u200d👧 é",
}


@dataclass
class ScriptedPackage:
    """A package as `packages.list` shows it, and what it is to the phone."""

    id: str
    name: str
    complete: bool = True
    bytes: int = 100 * MIB
    copied: int = 100 * MIB
    family: str = "llama"
    blocks: int = 4
    contextLength: int = 32768  # noqa: N815  (the bridge's name)
    template: bool = True


@dataclass
class Phone:
    """What the page is told of the phone. Sizes in bytes."""

    free: int = 3 << 30
    total: int = 8 << 30
    storage: int = 20 << 30
    needed: dict[str, int] = field(default_factory=dict)  # memory, by package; 100 MiB otherwise
    streamed: bool = False


class Failure(Exception):  # noqa: N818  (the word of the bridge is error)
    """An error answer."""

    def __init__(self, code: str, **details: Any) -> None:
        super().__init__(code)
        self.code, self.details = code, details


class ScriptedHost(PageHost):
    """`prompts` are the prompts' texts; `wanted` is what the picker gives: a package, or a failure."""

    def __init__(
        self, *packages: ScriptedPackage, phone: Phone | None = None, token_s: float = 0.001
    ) -> None:
        self.packages = {found.id: found for found in packages}
        self.phone, self.token_s = phone or Phone(), token_s
        self.prompts: list[str] = []
        self.wanted: ScriptedPackage | Failure = Failure("cancelled")
        self.go_on = threading.Event()  # an import waits for it in its middle
        self.refusals: dict[str, Failure] = {}  # of the next call, by method
        self.engines = 0
        self._importing = False
        self._cancelled = threading.Event()
        self._answer: _Answer | None = None
        self._loaded: str | None = None
        super().__init__()

    def page_opened(self) -> None:
        """An import ends with the page that began it."""
        self._import_cancel()

    def receive(self, text: str) -> None:
        call = json.loads(text)
        method: Callable[..., Any] = getattr(self, "_" + call["method"].replace(".", "_"))
        if call["method"] == "packages.import":
            threading.Thread(target=self._finish, args=(call, method, self.page_number), daemon=True).start()
        else:
            self._finish(call, method, self.page_number)

    def _finish(self, call: dict[str, Any], method: Callable[..., Any], page_number: int) -> None:
        try:
            if call["method"] in self.refusals:
                raise self.refusals.pop(call["method"])
            answer: dict[str, Any] = {"result": method(**call.get("params", {}))}
        except Failure as failure:
            message = f"scripted: {failure.code}"
            answer = {"error": {"code": failure.code, "message": message, "details": failure.details}}
        if page_number == self.page_number:  # a page that is gone gets no answer, nor does the next one
            self.emit(json.dumps({"id": call["id"], **answer}))

    def resource(self, path: str) -> tuple[int, bytes]:
        _, _, package, name = path.split("/")
        if package not in self.packages or name not in FILES:
            return 404, b""
        return 200, FILES[name].encode()

    # What the phone does by itself

    def crash(self) -> None:
        """The engine's process is killed."""
        self._silence()
        self._loaded = None
        self.event("engine.exit", code=137, signal=9, expected=False)

    def memory_low(self, severe: bool) -> None:
        self.event("memory.low", level=15 if severe else 10, severe=severe)

    # Methods

    def _device_info(self) -> dict[str, Any]:
        memory, storage = {"free": self.phone.free, "total": self.phone.total}, {"free": self.phone.storage}
        device = {"memory": memory, "storage": storage, "cores": 8, "bigCores": 4}
        return {"bridge": 1, "version": "0.1.0", "sdk": 34, "language": "en", **device}

    def _packages_list(self) -> dict[str, Any]:
        packages = sorted(self.packages.values(), key=lambda found: found.name)
        return {"packages": [asdict(found) for found in packages], "running": self._loaded}

    def _packages_import(self, kind: str) -> dict[str, Any]:
        assert kind in ("zip", "folder")
        if isinstance(self.wanted, Failure):
            raise self.wanted
        self._importing = True
        self._cancelled.clear()
        try:
            return {"package": asdict(self._copied(self.wanted))}
        finally:
            self._importing = False

    def _copied(self, wanted: ScriptedPackage) -> ScriptedPackage:
        package = self.packages.setdefault(wanted.id, wanted)
        for part in range(10 * package.copied // package.bytes, 11):
            package.copied = package.bytes * part // 10
            progress = {"package": package.id, "bytes": package.copied, "total": package.bytes}
            self.event("import.progress", **progress, file=f"block_{part:02}.mnn.weight")
            if part == 5:
                self.go_on.wait(60)
            if self._cancelled.is_set():
                raise Failure("cancelled")
        package.complete = True
        return package

    def _import_cancel(self) -> dict[str, Any]:
        runs = self._importing
        if runs:
            self._cancelled.set()
            self.go_on.set()
        return {"cancelled": runs}

    def _found(self, package: str) -> ScriptedPackage:
        if package not in self.packages:
            raise Failure("missing")
        return self.packages[package]

    def _packages_rename(self, package: str, name: str) -> dict[str, Any]:
        self._found(package).name = name
        return {"package": asdict(self._found(package))}

    def _packages_delete(self, package: str) -> dict[str, Any]:
        if self._loaded == package:
            raise Failure("busy")
        del self.packages[self._found(package).id]
        return {}

    def _engine_plan(
        self, package: str, context: int | None = None, kv: str | None = None, threads: int | None = None
    ) -> dict[str, Any]:
        needed = self.phone.needed.get(package, 100 * MIB)
        fits = needed <= self.phone.free
        return {
            "fits": fits,
            "reason": None if fits else "memory",
            "context": context or self._found(package).contextLength,
            "kv": kv or "float16",
            "threads": threads or 4,
            "memory": None,
            "anonymous": needed,
            "weights": self._found(package).bytes,
            "needed": needed,
            "free": self.phone.free,
            "streamed": self.phone.streamed,
        }

    def _engine_start(self, package: str, **choice: Any) -> dict[str, Any]:
        plan = self._engine_plan(package, **choice)
        if not plan["fits"]:
            raise Failure("memory", needed=plan["needed"], free=self.phone.free)
        self._silence()
        self.engines += 1
        self._loaded = package
        blocks, weights = self._found(package).blocks, self._found(package).bytes
        numbers = {
            "vocab_size": 258,
            "blocks": blocks,
            "context": plan["context"],
            "threads": plan["threads"],
        }
        loaded = {"event": "loaded", **numbers, "weight_bytes": weights, "streamed_bytes": 0, "seconds": 0.01}
        return {"plan": plan, "loaded": loaded}

    def _engine_stop(self) -> dict[str, Any]:
        ran = self._loaded is not None
        self._silence()
        self._loaded = None
        if ran:
            self.event("engine.exit", code=0, expected=True)
        return {"running": ran}

    def _engine_send(self, line: str) -> dict[str, Any]:
        if self._loaded is None:
            raise Failure("not_running")
        request = json.loads(line)
        if request["command"] == "generate":
            self.prompts.append(TOKENIZER.decode(request["tokens"], skip_special=False))
            self._answer = _Answer(self, request, self.prompts[-1])
        elif request["command"] == "stop" and self._answer is not None:
            self._answer.stop.set()
        elif request["command"] == "stats":
            used = {"anonymous_bytes": 60 * MIB, "weight_bytes": 90 * MIB, "cache_bytes": 8 * MIB}
            self.say({"event": "stats", "id": request["id"], "loaded": True, **used, "buffer_bytes": MIB})
        return {}

    def _clipboard_write(self, text: str) -> dict[str, Any]:
        return {}

    def _files_save(self, name: str, text: str) -> dict[str, Any]:
        return {"saved": True}

    def say(self, event: dict[str, Any]) -> None:
        """A line of the engine."""
        self.event("engine.line", line=json.dumps(event))

    def _silence(self) -> None:
        """A running answer says no more."""
        if self._answer is not None:
            self._answer.mute.set()
            self._answer.stop.set()


class _Answer:
    """One answer, in a thread of its own."""

    def __init__(self, host: ScriptedHost, request: dict[str, Any], prompt: str) -> None:
        self.host, self.request = host, request
        self.stop, self.mute = threading.Event(), threading.Event()
        asked = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
        self.text = SCRIPTS.get(asked.removeprefix("script:"), f"You said “{asked}”. Good!")
        self.prompt_tokens = len(request["tokens"])
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        tokens = TOKENIZER.encode(self.text)[: self.request["max_tokens"]]
        said = 0
        for token in tokens:
            if self.stop.is_set():
                break
            self._say({"event": "token", "token": token})
            said += 1
            time.sleep(self.host.token_s)
        reason = "interrupted" if self.stop.is_set() else "stop"
        counts = {"prompt_tokens": self.prompt_tokens, "reused_tokens": 12, "generated_tokens": said}
        times = {"prefill_s": 0.1, "decode_s": 1.0, "prefill_tps": 200.0, "decode_tps": float(said)}
        self._say({"event": "done", "reason": reason, **counts, **times})

    def _say(self, event: dict[str, Any]) -> None:
        if not self.mute.is_set():
            self.host.say({**event, "id": self.request["id"]})
