"""A model ready to answer: package, stages, head, tokenizer, template.

Enters: a package directory and the name of an engine. Leaves: sessions, tokens and chats.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.contract import Batch, Engine, Float32, Head, KVState, KVType, Stage
from pocketglm.engine.registry import default_engine, get_engine
from pocketglm.errors import DeviceMemoryError, InputError, PackageError
from pocketglm.generate.answer_defaults import AnswerDefaults
from pocketglm.generate.assembly import Part, assemble, fewer_on_gpu, place
from pocketglm.generate.load_settings import Backend, LoadSettings, placed
from pocketglm.generate.memory_budget import give_back_memory
from pocketglm.generate.prefix_cache import KEPT_BYTES, PrefixCache
from pocketglm.generate.sampler import Sampler, SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.generate.stage_chain import StageChain
from pocketglm.generate.stream import Generation
from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.package.reader import Package
from pocketglm.plan.placement import Placement

if TYPE_CHECKING:
    from pocketglm.generate.template import ChatTemplate

Messages = Sequence[Mapping[str, Any]]
Result = TypeVar("Result")


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
    placement: Placement | str | None = None,
) -> Model:
    """Open a package and load it into an engine (None: the best there is).

    `threads` is a limit for the engine. `memory` (bytes) is a limit for the whole process, see
    docs/guides/memory.md. `backend` is for engines that run on several: a name, or names by block
    index and `"head"`. `kv` is the type of the KV cache, for engines that have a choice. `context`
    limits the tokens of a session below what the model can. `lookup` is how many tokens prompt lookup
    guesses ahead, 0 for none, None for as many as leave every result as it is without. `placement`
    puts blocks on several engines, see docs/guides/placing.md: `engine` is then for those beside the
    GPU, `backend` names the GPU. Raises `PackageError` for a damaged package and `EngineError` for
    what the engine cannot run or for too little memory.
    """
    if placement is None:
        settings = LoadSettings(threads, memory, backend, kv, context, lookup)
    else:
        placement = placed(placement, engine=engine, backend=backend, kv=kv, context=context, memory=memory)
        settings = LoadSettings.of(placement, threads, lookup)
    chosen = get_engine(engine or default_engine())
    package = Package.open(path)
    try:
        return Model(package, chosen, settings)
    except BaseException:
        package.close()
        raise


class Model:
    """See `load`. A context manager; `close()` frees the weights. Calls into the stages are made one
    at a time, under `lock`, so sessions may be used from several threads."""

    def __init__(self, package: Package, engine: Engine, settings: LoadSettings | None = None) -> None:
        self._load_settings = settings or LoadSettings()
        self.package = package
        self.defaults = AnswerDefaults.of(package)
        self.lock = threading.RLock()
        self._sequences = itertools.count()
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        if self._load_settings.memory is not None and self.has_tokenizer:
            _ = self.tokenizer  # so that it counts among what the process holds
        self._assembly = assemble(package, engine, self._load_settings)
        self._chain = StageChain(self._assembly.stages)
        wanted = self._load_settings.lookup
        self.lookup = self._assembly.exact_rows - 1 if wanted is None else wanted
        kept = KEPT_BYTES if self._load_settings.memory is None else 0
        self.prefixes = PrefixCache(self, kept_bytes=kept)

    @property
    def stages(self) -> list[Stage]:
        """In the order of their blocks."""
        return self._assembly.stages

    @property
    def head(self) -> Head:
        return self._assembly.head

    @property
    def parts(self) -> Sequence[Part]:
        """What each stage was loaded from, in the same order, and the head last."""
        return self._assembly.parts

    @property
    def placement(self) -> Placement | None:
        """Where the blocks are now; None where one engine has all of them."""
        return self._assembly.placement

    @property
    def place_text(self) -> str | None:
        """`placement` in one line, as `--place` takes it."""
        return None if self.placement is None else self.placement.text

    @property
    def engine_name(self) -> str:
        """The engine; or all of them, joined by +."""
        return "+".join(self._assembly.engines)

    def places(self) -> list[tuple[str, str]]:
        """Engine and place of every block: `gpu`, or what the stage says, or `cpu`."""
        return self._assembly.places()

    @property
    def kv(self) -> KVType:
        """What KV caches hold, at most."""
        return self._assembly.kv

    @property
    def context(self) -> int:
        """Most tokens of a session."""
        return self._assembly.context

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
            give_back_memory()
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

    def open_sequence(self, sequence: int) -> None:
        """Start an empty cache in all stages."""
        self._chain.open(sequence)

    def close_sequence(self, sequence: int) -> None:
        self._chain.close(sequence)

    def forward(self, hidden: Float32, batch: Batch) -> Float32:
        """Rows [rows, hidden] through all blocks, as `Stage.forward`, but `hidden` may be overwritten. What
        the GPU has no room for moves off it."""
        return self._with_room(lambda: self._chain.forward(hidden, batch))

    def logits(self, hidden: Float32) -> Float32:
        """The last block's output [rows, hidden] -> logits [rows, vocab]."""
        return self._with_room(lambda: self.head.logits(hidden))

    def choose(self, samplers: Sequence[Sampler], logits: Float32) -> list[int | None]:
        """A token from each row of logits with its own sampler, as `Sampler.next_together`."""
        with self.lock:
            return Sampler.next_together(self.head, samplers, logits)

    def truncate(self, sequence: int, length: int) -> None:
        """As `Stage.truncate`, in all stages."""
        self._chain.truncate(sequence, length)

    def roll_back(self, sequence: int, length: int) -> None:
        """As `truncate`, of a sequence that may be shorter, in some stages or all."""
        self._chain.roll_back(sequence, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """As `Stage.copy_prefix`, in all stages."""
        self._with_room(lambda: self._chain.copy_prefix(source, target, length))

    def save(self, sequence: int) -> KVState:
        """The cache of all blocks, whatever stages hold it."""
        with self.lock:
            return self._chain.save(sequence)

    def restore(self, sequence: int, state: KVState) -> None:
        """As `Stage.restore`, in all stages."""
        self._with_room(lambda: self._chain.restore(sequence, state))

    def _with_room(self, call: Callable[[], Result]) -> Result:
        """`call` to the stages or the head; again with fewer blocks on the GPU where it has no room."""
        with self.lock:
            while True:
                try:
                    return call()
                except DeviceMemoryError as error:
                    self._move_off_gpu(error)

    def _move_off_gpu(self, error: DeviceMemoryError) -> None:
        """Load anew with fewer blocks there, and go on with the caches of all sequences. Raises `error` where
        that is no way out."""
        saved: dict[int, KVState] | None = None
        while True:
            before = self._assembly.placement
            if before is None:
                raise error
            placement = fewer_on_gpu(before, error)
            if saved is None:
                saved = {sequence: self._chain.save(sequence) for sequence in self._chain.sequences}
            self._chain.release()
            self.head.release()
            self._assembly = place(self.package, placement, self._load_settings, (before, error))
            self._chain = StageChain(self._assembly.stages)
            try:
                self._fill(saved)
                return
            except DeviceMemoryError as again:
                error = again

    def _fill(self, saved: Mapping[int, KVState]) -> None:
        for sequence, state in saved.items():
            self._chain.open(sequence)
            if state.length:
                self._chain.restore(sequence, state)

    def close(self) -> None:
        """Free weights, caches and files. Idempotent."""
        with self.lock:
            self.prefixes.close()
            self._chain.release()
            self.head.release()
            self.package.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
