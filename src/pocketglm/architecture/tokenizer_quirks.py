"""What the tokenizer converter must know about a family and cannot find in the tokenizer's files.

Enters: nothing; each family file states its own. Leaves: `TokenizerQuirks`, in terms of token texts.
Ids follow from the tokenizer's files: pieces first, then `appended_tokens` in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TokenizerQuirks:
    """How to turn a family's tokenizer files into `tokenizer.json`.

    The defaults fit every family whose files are complete (a `tokenizer.json`, a plain SentencePiece
    model, or a GGUF vocabulary). Each run of text between special tokens is encoded as SentencePiece
    encodes it alone, its leading "▁" included: the templates count on that.

    kind                 "files": convert what the checkpoint has, as it stands. "sentencepiece" or
                         "tiktoken": `file` must be converted, even beside a `tokenizer.json`.
    file                 the vocabulary file of that kind.
    appended_tokens      special tokens with the ids after the last piece of `file`, in this order.
    special_pieces       pieces of `file` that are special tokens: matched in text, never printed.
    prefix_tokens,       what `encode(text)` puts before and after a bare text. A rendered chat template
    suffix_tokens        has them already, so it is encoded with `add_special_tokens=False`.
    replacements         literal replacements in the text before SentencePiece sees it, in order; decoding
                         undoes them.
    pattern              tiktoken's splitting pattern.
    dropped_rows         vocabulary rows dropped from the front of the checkpoint: a package's token id
                         is the checkpoint's less this number. `file` counts from the package's ids.
    """

    kind: Literal["files", "sentencepiece", "tiktoken"] = "files"
    file: str | None = None
    appended_tokens: tuple[str, ...] = ()
    special_pieces: tuple[str, ...] = ()
    prefix_tokens: tuple[str, ...] = ()
    suffix_tokens: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()
    pattern: str | None = None
    dropped_rows: int = 0
