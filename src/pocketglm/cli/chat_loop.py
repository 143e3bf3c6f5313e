"""The chat itself: messages in, answers out, and the commands that begin with a slash."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pocketglm.cli import console
from pocketglm.cli.chat_input import ReadLine, read_message
from pocketglm.cli.run import print_answer, speed_line
from pocketglm.errors import InputError, PocketGLMError
from pocketglm.generate.chat import Conversation, Overflow
from pocketglm.generate.model import Model
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.generate.session import Session
from pocketglm.generate.stream import Generation

ANSWER_ROOM = 256
"""Tokens of the context kept free for an answer, where --max-tokens does not say how many it needs."""

HELP = '''/reset            forget the conversation, keep the system prompt
/system [TEXT]    set the system prompt, or remove it; forgets the conversation
/save FILE        write the conversation to a file
/load FILE        go on with a saved conversation
/stats            counts and speed of the last answer, and how full the context is
/help             this list
/quit             end (so does Ctrl-D)
A line ending in \\ goes on in the next; """ begins and ends a text of several lines.
Ctrl-C stops the answer. Begin a message with a blank if its first character is a slash.'''


class ChatLoop:
    """One conversation with one model."""

    def __init__(
        self,
        model: Model,
        settings: SamplingSettings,
        conversation: Conversation,
        session: Session,
        overflow: Overflow = "error",
    ) -> None:
        self._model = model
        self._settings = settings
        self._conversation = conversation
        self._overflow: Overflow = overflow
        self._session = session
        self._last: Generation | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._set_system,
            "/save": self._save,
            "/load": self._load,
            "/stats": self._stats,
            "/help": lambda _: console.note(HELP),
        }

    def run(self, read_line: ReadLine) -> None:
        """Until the input ends or the user quits."""
        while True:
            try:
                raw = read_message(read_line)
            except EOFError:
                return
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
                console.note("\n(/quit or Ctrl-D to end)")
                continue
            if raw in ("/quit", "/exit"):
                return
            try:
                self._handle(raw)
            except PocketGLMError as error:  # a wrong file name or a full context ends no chat
                console.show_error(error)

    def _handle(self, message: str) -> None:
        name, _, argument = message.partition(" ")
        if not message.strip():
            return
        if not name.startswith("/"):
            self._answer(message.strip())
        elif name in self._commands:
            self._commands[name](argument.strip())
        else:
            raise InputError(f"unknown command {name}", hint="/help lists the commands")

    def _answer(self, message: str) -> None:
        """Answer and remember. A question without any answer is forgotten."""
        conversation = self._conversation
        before = list(conversation.turns)
        conversation.add("user", message)
        try:
            prompt = conversation.fit(self._model.chat_prompt, self._room_for_prompt(), self._overflow)
            generation = self._model.answer(prompt, self._settings, self._session)
            self._last = generation
            with ctrl_c_stops(generation):
                print_answer(generation)
        except BaseException:
            conversation.turns[:] = before
            raise
        if generation.text:
            conversation.add("assistant", generation.text)
        else:
            conversation.turns[:] = before
        stopped = " stopped" if generation.finish_reason == "interrupted" else ""
        console.note(f"{speed_line(generation)}{stopped}")

    def _room_for_prompt(self) -> int:
        context = self._model.context
        if self._settings.max_length is not None:
            context = min(context, self._settings.max_length)
        wanted = self._settings.max_new_tokens
        room = ANSWER_ROOM if wanted is None else wanted
        return context - max(1, min(room, context // 4))

    def _reset(self, _: str) -> None:
        self._conversation.clear()
        console.note("(the conversation is forgotten)")

    def _set_system(self, text: str) -> None:
        self._conversation.system = text or None
        self._conversation.clear()
        console.note("(a new conversation with this system prompt)" if text else "(no system prompt)")

    def _save(self, name: str) -> None:
        self._conversation.save(_need_name(name, "/save"))
        console.note(f"({len(self._conversation.turns)} messages saved to {name})")

    def _load(self, name: str) -> None:
        self._conversation = Conversation.load(_need_name(name, "/load"))
        console.note(f"({len(self._conversation.turns)} messages loaded from {name})")

    def _stats(self, _: str) -> None:
        rows = [("messages", str(len(self._conversation.turns)))]
        rows.append(("context", f"{self._session.length} of {self._model.context} tokens"))
        if self._last is not None:
            figures = self._last.statistics.to_dict()
            rows += [(name.replace("_", " "), str(value)) for name, value in figures.items()]
        console.note(console.pairs(rows))


def _need_name(name: str, command: str) -> str:
    if not name:
        raise InputError(f"{command} needs the name of a file")
    return name


@contextmanager
def ctrl_c_stops(generation: Generation) -> Iterator[None]:
    """The first Ctrl-C ends the answer after its current token, a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: Any) -> None:
        generation.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
