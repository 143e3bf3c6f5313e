"""The run-time tokenizer: text to token ids and back, from a package's `tokenizer.json`.

Enters: the text of a `tokenizer.json` (untrusted). Leaves: ids and text. Needs only the `tokenizers`
library. Text is plain by default: a user who writes `<|user|>` gets those nine characters, never the
token; only what a chat template wrote is encoded with `allow_special=True`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pocketglm.errors import InputError, PackageError
from pocketglm.generate.detokenizer import StreamDecoder, TokenDecoding, read_decoding

__all__ = ["MAX_VOCABULARY", "SpecialToken", "StreamDecoder", "Tokenizer"]

MAX_VOCABULARY = 1 << 24
"""No vocabulary is larger; a larger id in a `tokenizer.json` is an attack or a bug."""


@dataclass(frozen=True)
class SpecialToken:
    """A special token, and whether it takes the blanks before and after it along."""

    id: int
    strip_before: bool
    strip_after: bool


class Tokenizer:
    """Encodes and decodes for one model. Make it with `from_json`; safe to share between threads."""

    def __init__(self, plain: Any, special: Any, decoding: TokenDecoding) -> None:
        self._plain = plain  # takes special tokens' texts as text
        self._special = special  # recognises them
        self._decoding = decoding
        added = special.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self.special_tokens = {  # by text
            token.content: SpecialToken(token_id, token.lstrip, token.rstrip)
            for token_id, token in added.items()
            if token.special
        }
        self.special_ids = frozenset(token.id for token in self.special_tokens.values())
        self._vocab_size = 1 + max(special.get_vocab(with_added_tokens=True).values(), default=-1)
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_json(cls, text: str, where: str = "tokenizer.json") -> Tokenizer:
        """Read a `tokenizer.json`. Raises `PackageError` where it is malformed or not supported."""
        sections = _sections(text, where)
        decoding = read_decoding(sections.get("decoder"), where)
        plain, special = _build(text, where), _build(text, where)
        plain.encode_special_tokens = True
        tokenizer = cls(plain, special, decoding)
        if not 0 < tokenizer.vocab_size <= MAX_VOCABULARY:
            raise PackageError(f"{tokenizer.vocab_size} tokens, expected 1 to {MAX_VOCABULARY}", where=where)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """One more than the largest id. A model may have more rows: those decode to nothing."""
        return self._vocab_size

    def encode(self, text: str, *, allow_special: bool = False, prompt: bool = False) -> list[int]:
        """Token ids of a text.

        `allow_special` recognises special tokens written in the text. `prompt` adds what the model
        expects around a prompt (such as `<s>`, or ChatGLM's `[gMASK] sop`).
        """
        tokenizer = self._special if allow_special else self._plain
        try:
            return list(tokenizer.encode(_without_surrogates(text), add_special_tokens=prompt).ids)
        except BaseException as error:
            _reraise_unless_library(error)
            raise InputError(f"the text cannot be encoded: {error}") from None

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        stream = self.stream(skip_special=skip_special)
        pieces = [stream.push(token_id) for token_id in token_ids]
        return "".join(pieces) + stream.finish()

    def stream(self, *, skip_special: bool = True) -> StreamDecoder:
        """A decoder that takes one token at a time."""
        return StreamDecoder(self._visible_bytes if skip_special else self.token_bytes, self._decoding)

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written `text` in the vocabulary, or None."""
        token_id = self._special.token_to_id(text)
        return None if token_id is None else int(token_id)

    def token_text(self, token_id: int) -> str | None:
        """How the vocabulary writes a token, or None where there is none."""
        self._check(token_id)
        text = self._added.get(token_id) or self._special.id_to_token(token_id)
        return None if text is None else str(text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token adds to a text; none for an id without a token."""
        known = self._bytes.get(token_id)
        if known is None:
            text = self.token_text(token_id) or ""
            known = self._decoding.token_bytes(text, plain=token_id in self._added)
            self._bytes[token_id] = known
        return known

    def _visible_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self.special_ids else self.token_bytes(token_id)

    @staticmethod
    def _check(token_id: int) -> None:
        if not 0 <= token_id < MAX_VOCABULARY:
            raise InputError(f"token id {token_id} is outside 0 to {MAX_VOCABULARY - 1}")


def _sections(text: str, where: str) -> dict[str, Any]:
    try:
        sections = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"is not JSON: {error}", where=where) from None
    if not isinstance(sections, dict):
        raise PackageError(f"holds a {type(sections).__name__}, expected an object", where=where)
    return sections


def _build(text: str, where: str) -> Any:
    from tokenizers import Tokenizer as Library

    try:
        library = Library.from_str(text)
    except BaseException as error:
        _reraise_unless_library(error)
        raise PackageError(f"the tokenizers library cannot read it: {error}", where=where) from None
    library.no_truncation()
    library.no_padding()
    return library


def _reraise_unless_library(error: BaseException) -> None:
    """Pass on what the tokenizers library did not raise. Its panics are no `Exception`s."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
        raise error


def _without_surrogates(text: str) -> str:
    """Join surrogate pairs; a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
