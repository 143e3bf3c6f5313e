"""MNN's binary tokenizer file (`.mtok`, type 4): two lines of text, then the steps of a tokenizer.

Enters: vocabulary, merges or scores, and the steps before and after, in the few kinds that MNN knows.
Leaves: the bytes that `MNN.llm` loads. Little endian; strings are preceded by their length (uint16).
Source of the layout: MNN 3.6 (`transformers/llm/engine/src/tokenizer/tokenizer.cpp`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAGIC, PIPELINE = 430, 4
MAX_STRING = 0xFFFF


def text(value: str) -> bytes:
    """A string with its length."""
    data = value.encode("utf-8")
    return struct.pack("<H", len(data)) + data


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for in the text before anything else."""

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Token texts and ids. An id may have several texts: decoding gives the last one in byte order.

    Every id from 0 to the largest has a text. `scores` (by id) makes it a unigram model, `merges`
    (first id, second id; best first) a byte-pair model.
    """

    entries: Sequence[tuple[bytes, int]]
    merges: Sequence[tuple[int, int]] | None = None
    scores: Sequence[float] = ()
    unknown_id: int = 0
    byte_fallback: bool = False


# Steps before the model. Each function gives the bytes of one step.


def prepend(value: str) -> bytes:
    return b"\x02" + text(value)


def replace(old: str, new: str) -> bytes:
    return b"\x03" + text(old) + text(new)


def character_map(table: Mapping[int, str]) -> bytes:
    """Code point -> text. MNN also makes control and format characters blanks."""
    rows = b"".join(struct.pack("<I", code) + text(new) for code, new in sorted(table.items()))
    return b"\x06" + struct.pack("<I", len(table)) + rows


def strip(left: bool, right: bool) -> bytes:
    return struct.pack("<BBB", 8, left, right)


def split_byte_level(use_regex: bool) -> bytes:
    return struct.pack("<BB", 1, use_regex)


SPLIT_BEHAVIORS = {"Isolated": 0, "Removed": 1, "MergedWithPrevious": 2}


def split_pattern(pattern: str, invert: bool, behavior: str) -> bytes:
    return b"\x04" + text(pattern) + struct.pack("<BB", invert, SPLIT_BEHAVIORS[behavior])


# Steps after it.

DECODE_BYTE_LEVEL, DECODE_BYTE_FALLBACK, DECODE_FUSE = b"\x00", b"\x01", b"\x04"


def decode_replace(old: str, new: str) -> bytes:
    return b"\x05" + text(old) + text(new)


def decode_strip(content: str, start: int, stop: int) -> bytes:
    return b"\x06" + text(content) + struct.pack("<II", start, stop)


def _steps(steps: Sequence[bytes], sequence: int) -> bytes:
    """No step, one, or a sequence; `sequence` is the kind of that."""
    if len(steps) == 1:
        return steps[0]
    return struct.pack("<BI", sequence, len(steps)) + b"".join(steps)


def mtok(
    vocabulary: Vocabulary,
    *,
    normalizers: Sequence[bytes],
    pre_tokenizers: Sequence[bytes],
    decoders: Sequence[bytes],
    added: Iterable[AddedToken],
    special_ids: Sequence[int],
    stop_ids: Sequence[int],
    prefix_ids: Sequence[int],
    template: str = "",
    eos: str = "",
    bos: str = "",
) -> bytes:
    """The whole file."""
    ids = [*special_ids, *stop_ids, *prefix_ids]
    counts = f"{len(special_ids)} {len(stop_ids)} {len(prefix_ids)}"
    head = f"{MAGIC} {PIPELINE}\n{counts}\n{' '.join(map(str, ids))}\n".encode()
    encoded_template = template.encode()
    tokens = [
        struct.pack("<IBBB", token.id, token.special, token.lstrip, token.rstrip) + text(token.content)
        for token in added
    ]
    return b"".join(
        [
            head,
            _steps(normalizers, 4) if normalizers else b"\x00",
            _steps(pre_tokenizers, 6) if pre_tokenizers else b"\x00",
            _model(vocabulary),
            _steps(decoders, 7),
            struct.pack("<I", len(tokens)),
            *tokens,
            struct.pack("<I", len(encoded_template)) + encoded_template,
            text(eos),
            b"\x00",  # flags: no clean-up of blanks
            text(bos),
        ]
    )


def _model(vocabulary: Vocabulary) -> bytes:
    entries = sorted(vocabulary.entries)  # MNN searches them by their bytes
    if vocabulary.merges is None:
        rows = (
            struct.pack("<H", len(t)) + t + struct.pack("<Id", i, vocabulary.scores[i]) for t, i in entries
        )
        head = struct.pack("<BIIB", 2, len(entries), vocabulary.unknown_id, vocabulary.byte_fallback)
        return head + b"".join(rows)
    rows = (struct.pack("<H", len(t)) + t + struct.pack("<I", i) for t, i in entries)
    ranks = sorted((first, second, rank) for rank, (first, second) in enumerate(vocabulary.merges))
    # The text arrives in byte-level letters already: the pre-tokenizer writes them
    head = struct.pack("<BIBBI", 0, len(entries), vocabulary.byte_fallback, 0, len(ranks))
    return head + b"".join(rows) + b"".join(struct.pack("<III", *rank) for rank in ranks)
