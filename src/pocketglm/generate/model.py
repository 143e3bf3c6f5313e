"""A model ready to answer: package, stages, head, tokenizer, template.

Enters: a package directory and the name of an engine. Leaves: sessions, tokens and chats.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Engine, EngineOptions, Head, KVType, Stage
from pocketglm.engine.registry import default_engine, get_engine
from pocketglm.errors import EngineError, InputError, PackageError
from pocketglm.generate.answer_defaults import AnswerDefaults
from pocketglm.generate.memory_budget import MemoryBudget, context_limit, plan_budget
from pocketglm.generate.prefix_cache import KEPT_BYTES, PrefixCache
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.generate.stream import Generation, check_lookup
from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.package.reader import Package

if TYPE_CHECKING:
    from pocketglm.generate.template import ChatTemplate

Backend = str | Mapping[int | str, str] | None
Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class LoadSettings:
    """How a model is loaded; see `load`."""

    threads: int | None = None
    memory: int | None = None
    backend: Backend = None
    kv: KVType | None = None
    context: int | None = None
    lookup: int | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "memory", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected 1 or more")
        if self.lookup is not None:
            check_lookup(self.lookup)


def load(
    path: str | Path,
    engine: str | None = None,
    threads: int | None = None,
    memory: int | None = None,
    backend: Backend = None,
    *,
    kv: KVType | None = None,
    context: int | None = None,
    lookup: int | None = None,
) -> Model:
    """Open a package and load it into an engine (None: the best there is).

    `threads` is a limit for the engine. `memory` (bytes) is a limit for the whole process, see
    docs/guides/memory.md. `backend` is for engines that run on several: a name, or names by block
    index and `"head"`. `kv` is the type of the KV cache, for engines that have a choice. `context`
    limits the tokens of a session below what the model can. `lookup` is how many tokens prompt lookup
    guesses ahead, 0 for none, None for as many as leave every result as it is without. Raises
    `PackageError` for a damaged package and `EngineError` for what the engine cannot run or for too
    little memory.
    """
    settings = LoadSettings(threads, memory, backend, kv, context, lookup)
    chosen = get_engine(engine or default_engine())
    check_backend(chosen, backend)
    check_kv(chosen, kv)
    package = Package.open(path)
    try:
        return Model(package, chosen, settings)
    except BaseException:
        package.close()
        raise


def check_backend(engine: Engine, backend: Backend) -> None:
    """Raises `EngineError` where the engine does not have a backend that is asked for."""
    named = () if backend is None else (backend,) if isinstance(backend, str) else backend.values()
    there = engine.capabilities().devices
    for name in named:
        if name not in there:
            raise EngineError(
                f"engine {engine.name} has no backend {name!r} here", hint=f"it has {', '.join(there)}"
            )


def check_kv(engine: Engine, kv: str | None) -> None:
    """Raises `EngineError` where the engine has no choice of KV caches, or not this one."""
    there = engine.capabilities().kv_types
    if kv is None or kv in there:
        return
    if not there:
        raise EngineError(
            f"engine {engine.name} has no choice of KV caches", hint="leave out kv (--kv), or use native"
        )
    raise EngineError(f"engine {engine.name} has no KV cache of {kv!r}", hint=f"it has {', '.join(there)}")


class Model:
    """See `load`. A context manager; `close()` frees the weights. Calls into the stages are made one
    at a time, under `lock`, so sessions may be used from several threads."""

    def __init__(self, package: Package, engine: Engine, settings: LoadSettings | None = None) -> None:
        settings = settings or LoadSettings()
        self.package = package
        self.engine_name = engine.name
        capabilities = engine.capabilities()
        self.kv: KVType = settings.kv or ("float16" if capabilities.kv_types else "float32")
        self.lookup = capabilities.exact_rows - 1 if settings.lookup is None else settings.lookup
        self.defaults = AnswerDefaults.of(package)
        self.lock = threading.RLock()
        self.stages: list[Stage] = []
        self._sequences = itertools.count()
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        budget = self._budget(settings, capabilities.holds_memory)
        self.context = budget.context
        options = EngineOptions(
            threads=settings.threads,
            memory_bytes=settings.memory,
            backend=settings.backend,
            kv=settings.kv,
            memory_taken=budget.taken,
            context=budget.context,
        )
        self.prefixes = PrefixCache(self, kept_bytes=KEPT_BYTES if settings.memory is None else 0)
        try:
            self.stages.append(engine.load_blocks(package, range(package.spec.num_blocks), options))
            self.head: Head = engine.load_head(package, options)
        except BaseException:
            for stage in self.stages:
                stage.release()
            raise

    @property
    def spec(self) -> ModelSpec:
        return self.package.spec

    @property
    def has_tokenizer(self) -> bool:
        return "tokenizer.json" in self.package.manifest.files

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises `PackageError` where the package has none."""
        if self._tokenizer is None:
            text = self.package.text("tokenizer.json")
            if text is None:
                raise PackageError(
                    "the package has no tokenizer.json, so it takes and gives token ids only",
                    where=self.package.path,
                    hint="convert a checkpoint that has its tokenizer beside it",
                )
            self._tokenizer = Tokenizer.from_json(text, str(self.package.path / "tokenizer.json"))
        return self._tokenizer

    @property
    def has_template(self) -> bool:
        return "chat_template.jinja" in self.package.manifest.files

    @property
    def template(self) -> ChatTemplate:
        """Raises `PackageError` where the package has none: the model is not made for chats."""
        if self._template is None:
            from pocketglm.generate.template import ChatTemplate

            self._template = ChatTemplate.of(self.package, self.tokenizer)
        return self._template

    def session(self) -> Session:
        """A new, empty session."""
        with self.lock:
            return Session(self, next(self._sequences))

    def settings(self, **overrides: Any) -> SamplingSettings:
        """The model's own sampling settings, with `overrides` that are not None on top."""
        return self.defaults.settings(**overrides)

    def generate(
        self,
        token_ids: Iterable[int],
        max_new_tokens: int | None = 64,
        temperature: float = 0.0,
        *,
        lookup: int | None = None,
        **sampling: Any,
    ) -> Iterator[int]:
        """Token ids of the answer, one by one as they are made; greedy unless told otherwise.

        `lookup` is as in `answer`; `sampling` are fields of `SamplingSettings`. Ends before an
        end token of the model, which is not given out.
        """
        settings = SamplingSettings.of(
            None, max_new_tokens=max_new_tokens, temperature=temperature, **sampling
        )
        prompt = [int(token) for token in token_ids]
        with self.session() as session:
            for piece in self.answer(prompt, settings, session, lookup=lookup):
                if piece.token is not None:
                    yield piece.token

    def answer(
        self,
        prompt: Sequence[int],
        settings: SamplingSettings,
        session: Session,
        logprobs: bool = False,
        lookup: int | None = None,
    ) -> Generation:
        """An answer to `prompt` in `session`, which keeps what its cache shares with the prompt.

        `lookup` replaces the model's own number of tokens to guess ahead.
        """
        decoder = self.tokenizer.stream() if self.has_tokenizer else None
        if settings.stop and decoder is None:
            raise InputError("stop strings need a tokenizer, and this package has none")
        most = self.lookup if lookup is None else lookup
        return Generation(session, prompt, settings, self.defaults.end_tokens, decoder, logprobs, most)

    def prompt(self, text: str) -> list[int]:
        """Token ids of a bare text, with what the model expects around a prompt."""
        return self.tokenizer.encode(text, prompt=True)

    def chat_prompt(self, messages: Messages) -> list[int]:
        """Token ids of a conversation, ending where the assistant's answer begins."""
        return self.template.encode(messages)

    @overload
    def chat(
        self,
        messages: Messages,
        stream: Literal[False] = False,
        *,
        lookup: int | None = None,
        **sampling: Any,
    ) -> str: ...
    @overload
    def chat(
        self, messages: Messages, stream: Literal[True], *, lookup: int | None = None, **sampling: Any
    ) -> Iterator[str]: ...
    @overload
    def chat(
        self, messages: Messages, stream: bool, *, lookup: int | None = None, **sampling: Any
    ) -> str | Iterator[str]: ...

    def chat(
        self, messages: Messages, stream: bool = False, *, lookup: int | None = None, **sampling: Any
    ) -> str | Iterator[str]:
        """Answer a conversation: the whole text, or with `stream` its pieces as they are made.

        `messages` are `{"role": "system" | "user" | "assistant", "content": text}`. The model's own
        sampling settings hold where `sampling` (fields of `SamplingSettings`) does not say otherwise;
        `lookup` is as in `answer`. The caches of the last conversations are kept (`prefixes`), so that
        a next turn, or another chat that begins alike, computes only what is new.
        """
        settings = self.settings(**sampling)
        pieces = self._chat(self.chat_prompt(messages), settings, lookup)
        return pieces if stream else "".join(pieces)

    def _chat(self, prompt: list[int], settings: SamplingSettings, lookup: int | None) -> Iterator[str]:
        session = self.prefixes.take(prompt)
        try:
            generation = self.answer(prompt, settings, session, lookup=lookup)
            try:
                yield from generation.texts()
            finally:
                generation.close()  # before the session is another one's
        finally:
            self.prefixes.give_back(session)

    def _budget(self, settings: LoadSettings, holds_memory: bool) -> MemoryBudget:
        if settings.memory is None or not holds_memory:
            return MemoryBudget(context_limit(self.spec, settings.context), 0)
        if self.has_tokenizer:
            _ = self.tokenizer  # so that it counts among what the process holds
        rows = 1 + self.lookup
        return plan_budget(self.spec, self.kv, settings.memory, settings.context, rows)

    def close(self) -> None:
        """Free weights, caches and files. Idempotent."""
        with self.lock:
            self.prefixes.close()
            for stage in self.stages:
                stage.release()
            self.head.release()
            self.package.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
