"""Conversations: who said what, as JSON and as a prompt that fits the context.

Enters: a system prompt and turns. Leaves: messages for the chat template, a JSON file, a prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pocketglm.errors import InputError
from pocketglm.package.writer import partial_of

Role = Literal["user", "assistant"]
Overflow = Literal["error", "drop_oldest"]
Encode = Callable[[Sequence[Mapping[str, Any]]], list[int]]

FORMAT = "pocketglm-conversation"
VERSION = 1


@dataclass
class Conversation:
    """Turns in order. `system` stands before them and is never dropped."""

    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def add(self, role: Role, content: str) -> None:
        self.turns.append({"role": role, "content": content})

    def clear(self) -> None:
        """Forget the turns; the system prompt stays."""
        self.turns.clear()

    def drop_oldest(self) -> bool:
        """Forget the first question and its answer. False where only the last question is left."""
        rest = next((i for i, turn in enumerate(self.turns) if i > 0 and turn["role"] == "user"), None)
        if rest is None:
            return False
        del self.turns[:rest]
        return True

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the chat template takes."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        return head + [dict(turn) for turn in self.turns]

    def fit(self, encode: Encode, limit: int, overflow: Overflow = "error") -> list[int]:
        """The prompt's token ids, at most `limit` of them.

        Where they do not fit, `error` raises `InputError` and `drop_oldest` forgets turns from the
        start until they do.
        """
        while True:
            prompt = encode(self.messages)
            if len(prompt) <= limit:
                return prompt
            if overflow == "error" or not self.drop_oldest():
                raise InputError(
                    f"the conversation needs {len(prompt)} tokens, {limit} are left for it",
                    hint="start anew, drop old turns, or shorten the last message",
                )

    def to_json(self) -> str:
        data = {"format": FORMAT, "version": VERSION, "system": self.system, "turns": self.turns}
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object = None) -> Conversation:
        """Read what `to_json` wrote. Raises `InputError`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not valid JSON ({error})", where=where) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError("not a saved conversation", where=where)
        if data.get("version") != VERSION:
            raise InputError(
                f"conversation version is {data.get('version')!r}, expected {VERSION}", where=where
            )
        system, turns = data.get("system"), data.get("turns")
        if not (system is None or isinstance(system, str)) or not isinstance(turns, list):
            raise InputError("the conversation's system prompt or turns are malformed", where=where)
        conversation = cls(system)
        for turn in turns:
            if not _is_turn(turn):
                raise InputError(f"a turn is {str(turn)[:80]}, expected a role and a content", where=where)
            conversation.add(turn["role"], turn["content"])
        return conversation

    def save(self, path: str | Path) -> None:
        """Write to a temporary name, then rename."""
        target = Path(path)
        partial = partial_of(target)
        try:
            partial.write_text(self.to_json(), "utf-8")
            os.replace(partial, target)
        except OSError as error:
            raise InputError(f"cannot write the conversation ({error.strerror})", where=target) from None

    @classmethod
    def load(cls, path: str | Path) -> Conversation:
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise InputError(f"cannot read the conversation ({error.strerror})", where=path) from None
        except UnicodeDecodeError:
            raise InputError("not a saved conversation (it is not UTF-8)", where=path) from None
        return cls.from_json(text, path)


def _is_turn(turn: object) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("user", "assistant")
        and isinstance(turn.get("content"), str)
    )
