"""Constrained answers: which tokens a grammar allows next.

Enters: a JSON schema or a Lark grammar, and tokens as they are chosen. Leaves: logits in which what is
not allowed is minus infinity. The work is done by the library `llguidance`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketglm.engine.contract import Float32
from pocketglm.errors import EngineError, InputError, MissingExtraError
from pocketglm.generate.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write blanks: a small model that may choose goes on choosing blanks."""


BEFORE = "\ue000"
"""A character without a meaning: normalizers keep it, and no token has it beside others."""


class _Vocabulary:
    """What llguidance asks of a tokenizer: the bytes of every token, special ones apart."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_token: int) -> None:
        self.eos_token_id = end_token
        self.bos_token_id = None
        self.special_token_ids = sorted(i for i in tokenizer.special_ids if i < vocab_size)
        special = frozenset(self.special_token_ids)
        self.tokens = [
            _special_text(tokenizer, i)
            if i in special
            else (tokenizer.token_bytes(i) if i < tokenizer.vocab_size else b"")
            for i in range(vocab_size)
        ]
        self._tokenizer = tokenizer
        self._before = tokenizer.encode(BEFORE)

    def __call__(self, text: str) -> list[int]:
        """Ids of a text that goes on, without the blank that some tokenizers put before a beginning."""
        ids = self._tokenizer.encode(BEFORE + text)
        joined = ids[: len(self._before)] != self._before
        return self._tokenizer.encode(text) if joined else ids[len(self._before) :]


def _special_text(tokenizer: Tokenizer, token_id: int) -> bytes:
    return (tokenizer.token_text(token_id) or "").encode()


class GrammarCompiler:
    """Makes grammars for one model. The vocabulary's trie is built at the first, in tenths of a second."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_tokens = sorted(end_tokens)
        self._library: LLTokenizer | None = None

    def from_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """A grammar of the JSON texts that fit `schema`. Raises `InputError` for one not supported."""
        matcher = _llguidance().LLMatcher
        return self.from_source(matcher.grammar_from_json_schema(json.dumps(schema), defaults=COMPACT))

    def from_lark(self, text: str) -> Grammar:
        """A grammar in llguidance's Lark notation."""
        return self.from_source(_llguidance().LLMatcher.grammar_from_lark(text))

    def from_source(self, source: str) -> Grammar:
        """A grammar in llguidance's own notation."""
        matcher = _llguidance().LLMatcher(self._tokens(), source, log_level=0)
        if matcher.is_error():
            raise InputError(f"the grammar cannot be used: {_first_line(matcher.get_error())}")
        return Grammar(matcher, self._vocab_size, self._end_tokens)

    def _tokens(self) -> LLTokenizer:
        if self._library is None:
            if not self._end_tokens:
                raise InputError(
                    "the model has no end token, so a constrained answer could not end",
                    hint="name eos_token_ids in the package's generation.json",
                )
            library = _llguidance()
            vocabulary = _Vocabulary(self._tokenizer, self._vocab_size, self._end_tokens[0])
            wrapper = library.TokenizerWrapper(vocabulary)
            self._library = library.LLTokenizer(
                wrapper, n_vocab=self._vocab_size, eos_token=self._end_tokens, slices=None
            )
        return self._library


class Grammar:
    """The state of one answer in its grammar. `fork` it for every answer."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, end_tokens: Iterable[int]) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._end_tokens = list(end_tokens)

    def fork(self) -> Grammar:
        """An independent copy of this state."""
        return Grammar(self._matcher.deep_copy(), self._vocab_size, self._end_tokens)

    @property
    def finished(self) -> bool:
        """Nothing can follow but the end."""
        return bool(self._matcher.is_stopped())

    def masked(self, logits: Float32) -> Float32:
        """A copy of `logits` [vocab], minus infinity where a token is not allowed."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool)
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """Go on with a token that `masked` allowed."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the grammar gave up: {_first_line(self._matcher.get_error())}")


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:300]


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        raise MissingExtraError(
            "constrained answers need the package llguidance", hint="pip install 'pocketglm[serve]'"
        ) from None
    return llguidance
