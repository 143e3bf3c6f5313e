"""Chat templates: from messages to the token ids of a prompt.

Enters: messages and a package's `chat_template.jinja`. Leaves: text and ids. What a message says stays
text: a user who writes `<|assistant|>` or `</s>` cannot end the turn, because special tokens are only
recognised where the template itself wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError

from pocketglm.errors import InputError, PackageError
from pocketglm.generate.sandbox import TemplateEnvironment, TemplateLimitError, TemplateRaisedError, render
from pocketglm.generate.tokenizer import Tokenizer

TEMPLATE_FILE = "chat_template.jinja"

_MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
"""Unicode noncharacters, reserved for use inside programs."""


class TextSource(Protocol):
    """A package, as far as templates need it."""

    @property
    def path(self) -> Any: ...

    def text(self, name: str) -> str | None: ...


class ChatTemplate:
    """One model's chat template and the tokenizer that encodes what it renders."""

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        where: str = TEMPLATE_FILE,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._tokenizer = tokenizer
        self._where = where
        self._environment = TemplateEnvironment(now)
        try:
            self._template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise PackageError(f"line {error.lineno}: {error.message}", where=where) from None
        except (TemplateError, RecursionError, SyntaxError, ValueError) as error:
            raise PackageError(f"is not a usable template: {error}", where=where) from None

    @classmethod
    def of(cls, package: TextSource, tokenizer: Tokenizer) -> ChatTemplate:
        """The template of a package. Raises `PackageError` where it has none or a malformed one."""
        where = f"{package.path}/{TEMPLATE_FILE}"
        source = package.text(TEMPLATE_FILE)
        if source is None:
            raise PackageError(
                "the package has no chat template",
                where=where,
                hint="give the prompt as plain text (run --raw), or convert with a template",
            )
        return cls(source, tokenizer, where)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The prompt as text. `variables` (such as `tools`) are passed on to the template.

        Raises `InputError` where the template does not accept the messages, `PackageError` where the
        template itself is at fault.
        """
        _check_messages(messages)
        names = {**variables, "messages": list(messages), "add_generation_prompt": add_generation_prompt}
        try:
            return render(self._environment, self._template, names)
        except TemplateRaisedError as error:
            raise InputError(f"the chat template refuses these messages: {error}") from None
        except (TemplateLimitError, SecurityError) as error:
            raise PackageError(f"the template {error}", where=self._where) from None
        except RecursionError:
            raise PackageError("the template calls itself too deeply", where=self._where) from None
        except MemoryError:
            raise PackageError("the template needs too much memory", where=self._where) from None
        except Exception as error:  # whatever Python raises inside a template's expressions
            kind = type(error).__name__
            raise InputError(
                f"the chat template cannot render these messages: {kind}: {error}",
                hint="each message needs the roles and fields that the model knows, with text as content",
            ) from None

    def encode(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The prompt's token ids, with special tokens only where the template wrote them."""
        special = self._tokenizer.special_tokens
        pattern = _any_of(special)
        strings = [*_strings(messages), *_strings(variables)]
        if pattern is None or not any(pattern.search(text) for text in strings):
            text = self.render(messages, add_generation_prompt=add_generation_prompt, **variables)
            return self._tokenizer.encode(text, allow_special=True)
        mark = _unused_mark(strings)
        text = self.render(
            _broken(list(messages), pattern, mark),
            add_generation_prompt=add_generation_prompt,
            **_broken(variables, pattern, mark),
        )
        return list(self._encode_runs(text, pattern, mark))

    def _encode_runs(self, text: str, pattern: re.Pattern[str], mark: str) -> Iterator[int]:
        """Ids of rendered text whose messages had their special texts broken by `mark`.

        Every run between special tokens is encoded alone. That equals encoding the whole, except for
        tokenizers that put a dummy blank before the first run only.
        """
        special = self._tokenizer.special_tokens
        start, strip_next = 0, False
        for match in [*pattern.finditer(text), None]:
            token = None if match is None else special[match[0]]
            run = text[start : None if match is None else match.start()].replace(mark, "")
            run = run.lstrip() if strip_next else run
            run = run.rstrip() if token is not None and token.strip_before else run
            yield from self._tokenizer.encode(run)
            if match is not None and token is not None:
                yield token.id
                start, strip_next = match.end(), token.strip_after


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise InputError("a conversation needs at least one message")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"message {number} is not an object with a role and a content")


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the texts, the longest first; None for no texts."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a JSON-like value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _unused_mark(strings: Sequence[str]) -> str:
    for mark in _MARKS:
        if not any(mark in text for text in strings):
            return mark
    raise InputError("the messages use all of Unicode's noncharacters beside special tokens' texts")


def _broken(value: Any, pattern: re.Pattern[str], mark: str) -> Any:
    """The same value, a mark after the first character of every special token's text."""
    if isinstance(value, str):
        starts = [i for i in range(len(value)) if pattern.match(value, i)]
        ends = [*(i + 1 for i in starts), len(value)]
        return mark.join(value[a:b] for a, b in zip([0, *ends], ends, strict=False))
    if isinstance(value, Mapping):
        return {_broken(key, pattern, mark): _broken(item, pattern, mark) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_broken(item, pattern, mark) for item in value]
    return value
