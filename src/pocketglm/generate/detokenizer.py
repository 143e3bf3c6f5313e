"""From token ids to text: the bytes of each token, and a decoder that streams them.

Enters: the `decoder` section of a `tokenizer.json`, and token texts by id. Leaves: text, whole or
piece by piece. A stream never shows half a character, and its pieces joined are the whole text,
because both come from the same incremental UTF-8 decoder.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pocketglm.errors import PackageError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

TokenBytes = Callable[[int], bytes]


def byte_characters() -> dict[int, str]:
    """GPT-2's printable character for every byte, which byte-level vocabularies are written in."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table


@dataclass(frozen=True)
class TokenDecoding:
    """What a `decoder` section does to each token, and to the start of the whole text."""

    byte_level: bool
    byte_fallback: bool
    replacements: tuple[tuple[str, str], ...]
    strip_character: str = ""
    strip_count: int = 0

    def token_bytes(self, token: str, *, plain: bool = False) -> bytes:
        """UTF-8 bytes that a token stands for; `plain` tokens are written as they are in the text."""
        if self.byte_fallback and (match := _BYTE_TOKEN.match(token)):
            return bytes([int(match[1], 16)])
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.byte_level and not plain:
            return _byte_level_bytes(token)
        return token.encode("utf-8", "replace")


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # the tokenizers library, too, takes such a token as plain text
        return token.encode("utf-8", "replace")


_BYTE_OF = {character: byte for byte, character in byte_characters().items()}


def read_decoding(decoder: object, where: str) -> TokenDecoding:
    """Interpret the `decoder` section of a `tokenizer.json`.

    Raises `PackageError` for one that is not byte-level, nor SentencePiece-like (replacements, byte
    fallback, fuse, strip): no supported model uses another.
    """
    steps = (
        decoder.get("decoders")
        if isinstance(decoder, Mapping) and decoder.get("type") == "Sequence"
        else [decoder]
    )
    if not isinstance(steps, list) or not steps:
        raise PackageError(f"the decoder is {decoder!r}, expected an object with a type", where=where)
    reading = _Reading()
    for step in steps:
        try:
            reading.add(step)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise PackageError(f"decoder step {step!r} is not supported: {error}", where=where) from None
    return TokenDecoding(
        reading.byte_level, reading.byte_fallback, tuple(reading.replacements), *(reading.strip or ("", 0))
    )


class _Reading:
    """Collects decoder steps; a `KeyError` or `ValueError` names what is not understood."""

    def __init__(self) -> None:
        self.byte_level = False
        self.byte_fallback = False
        self.fused = False
        self.replacements: list[tuple[str, str]] = []
        self.strip: tuple[str, int] | None = None

    def add(self, step: Mapping[str, Any]) -> None:
        kind = step["type"]
        if self.fused and kind not in ("Strip", "Fuse"):
            raise ValueError(f"{kind} after Fuse")
        if kind == "ByteLevel":
            self.byte_level = True
        elif kind == "ByteFallback":
            self.byte_fallback = True
        elif kind == "Fuse":
            self.fused = True
        elif kind == "Replace":
            self.replacements.append((str(step["pattern"]["String"]), str(step["content"])))
        elif kind == "Metaspace":
            self.replacements.append((str(step["replacement"]), " "))
            if step.get("prepend_scheme", "always") != "never":
                self.strip = (" ", 1)
        elif kind == "Strip" and self.fused and not step["stop"]:
            self.strip = (str(step["content"]), int(step["start"]))
        else:
            raise ValueError(f"{kind} is unknown here")


class StreamDecoder:
    """Turns token ids into text as they come.

    `push` returns the text that is certain so far: an incomplete UTF-8 character waits for its
    remaining bytes. `finish` returns what is left, with U+FFFD in place of bytes that are no UTF-8.
    """

    def __init__(self, token_bytes: TokenBytes, decoding: TokenDecoding) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_character = decoding.strip_character
        self._strip_left = decoding.strip_count

    def push(self, token_id: int) -> str:
        """Add one token; returns the new text, which may be empty."""
        return self._stripped(self._utf8.decode(self._token_bytes(token_id)))

    def finish(self) -> str:
        """End the text; returns the rest."""
        return self._stripped(self._utf8.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        """Drop the blank that stands for the start of the text (SentencePiece's dummy prefix)."""
        while self._strip_left and text:
            if text[0] != self._strip_character:
                self._strip_left = 0
                break
            text = text[1:]
            self._strip_left -= 1
        return text
