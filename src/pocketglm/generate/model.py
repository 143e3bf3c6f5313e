"""A model ready to answer: package, stages, head, tokenizer, template.

Enters: a package directory and the name of an engine. Leaves: sessions, tokens and chats.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Engine, EngineOptions, Head, Stage
from pocketglm.engine.registry import default_engine, get_engine
from pocketglm.errors import EngineError, InputError, PackageError
from pocketglm.generate.answer_defaults import AnswerDefaults
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.generate.stream import Generation
from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.package.reader import Package

if TYPE_CHECKING:
    from pocketglm.generate.template import ChatTemplate

Backend = str | Mapping[int | str, str] | None
Messages = Sequence[Mapping[str, Any]]


def load(
    path: str | Path,
    engine: str | None = None,
    threads: int | None = None,
    memory: int | None = None,
    backend: Backend = None,
) -> Model:
    """Open a package and load it into an engine (None: the best there is).

    `threads` and `memory` (bytes) are limits for the engine; None leaves the choice to it. `backend`
    is for engines that run on several: a name, or names by block index and `"head"`. Raises
    `PackageError` for a damaged package and `EngineError` for one that the engine cannot run.
    """
    for name, value in (("threads", threads), ("memory", memory)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, expected 1 or more")
    chosen = get_engine(engine or default_engine())
    check_backend(chosen, backend)
    package = Package.open(path)
    try:
        return Model(package, chosen, EngineOptions(threads, memory, backend))
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


class Model:
    """See `load`. A context manager; `close()` frees the weights. Calls into the stages are made one
    at a time, under `lock`, so sessions may be used from several threads."""

    def __init__(self, package: Package, engine: Engine, options: EngineOptions) -> None:
        self.package = package
        self.engine_name = engine.name
        self.defaults = AnswerDefaults.of(package)
        self.lock = threading.RLock()
        self.stages: list[Stage] = []
        self._sequences = itertools.count()
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        self._chat_session: Session | None = None
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
        **sampling: Any,
    ) -> Iterator[int]:
        """Token ids of the answer, one by one as they are made; greedy unless told otherwise.

        `sampling` are fields of `SamplingSettings`. Ends before an end token of the model, which is
        not given out.
        """
        settings = SamplingSettings.of(
            None, max_new_tokens=max_new_tokens, temperature=temperature, **sampling
        )
        prompt = [int(token) for token in token_ids]
        with self.session() as session:
            for piece in self.answer(prompt, settings, session):
                if piece.token is not None:
                    yield piece.token

    def answer(
        self, prompt: Sequence[int], settings: SamplingSettings, session: Session, logprobs: bool = False
    ) -> Generation:
        """An answer to `prompt` in `session`, which keeps what its cache shares with the prompt."""
        decoder = self.tokenizer.stream() if self.has_tokenizer else None
        if settings.stop and decoder is None:
            raise InputError("stop strings need a tokenizer, and this package has none")
        return Generation(session, prompt, settings, self.defaults.end_tokens, decoder, logprobs)

    def prompt(self, text: str) -> list[int]:
        """Token ids of a bare text, with what the model expects around a prompt."""
        return self.tokenizer.encode(text, prompt=True)

    def chat_prompt(self, messages: Messages) -> list[int]:
        """Token ids of a conversation, ending where the assistant's answer begins."""
        return self.template.encode(messages)

    @overload
    def chat(self, messages: Messages, stream: Literal[False] = False, **sampling: Any) -> str: ...
    @overload
    def chat(self, messages: Messages, stream: Literal[True], **sampling: Any) -> Iterator[str]: ...
    @overload
    def chat(self, messages: Messages, stream: bool, **sampling: Any) -> str | Iterator[str]: ...

    def chat(self, messages: Messages, stream: bool = False, **sampling: Any) -> str | Iterator[str]:
        """Answer a conversation: the whole text, or with `stream` its pieces as they are made.

        `messages` are `{"role": "system" | "user" | "assistant", "content": text}`. The model's own
        sampling settings hold where `sampling` (fields of `SamplingSettings`) does not say otherwise.
        The cache of the last conversation is kept, so that a next turn computes only what is new.
        """
        settings = self.settings(**sampling)
        pieces = self._chat(self.chat_prompt(messages), settings)
        return pieces if stream else "".join(pieces)

    def _chat(self, prompt: list[int], settings: SamplingSettings) -> Iterator[str]:
        with self.lock:  # take the kept session, or a new one if another thread is using it
            session, self._chat_session = self._chat_session or self.session(), None
        try:
            yield from self.answer(prompt, settings, session).texts()
        finally:
            with self.lock:
                spare, self._chat_session = self._chat_session, session
            if spare is not None:
                spare.close()

    def close(self) -> None:
        """Free weights, caches and files. Idempotent."""
        with self.lock:
            if self._chat_session is not None:
                self._chat_session.close()
                self._chat_session = None
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
