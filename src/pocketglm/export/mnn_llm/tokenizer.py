"""A package's `tokenizer.json` as MNN's `.mtok`.

Enters: the tokenizer, and the ids that end an answer. Leaves: the file's bytes and notes on what MNN's
tokenizer does otherwise. MNN knows fewer steps than the tokenizers library: patterns stand only where
text is split, characters are not composed, and nothing spans the place where a special token was.
"""

from __future__ import annotations

import base64
import json
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketglm.convert.tokenizer.sentencepiece_model import CLUSTER_END, SPACE, TEXT_START
from pocketglm.errors import EngineError
from pocketglm.export.mnn_llm import mtok
from pocketglm.generate.detokenizer import byte_characters

Json = dict[str, Any]
TOKENIZER_FILE = "tokenizer.mtok"

ALIASES = tuple(chr(code) for code in range(1, 0x20) if chr(code) not in "\t\n\r")
"""Control characters that stand for symbols between two steps; in byte order before all printable text."""

LONGEST_RUN = 1 << 12
"""Blanks that collapsing to one takes care of."""


@dataclass
class MnnTokenizer:
    """The file's bytes, and what it does otherwise than the package's tokenizer."""

    data: bytes
    notes: list[str]


@dataclass
class _Translation:
    """One tokenizer on its way."""

    source: Json
    notes: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)  # symbol -> control character
    shown: dict[str, str] = field(default_factory=dict)  # symbol -> text that decoding gives
    pre_tokenizers: list[bytes] = field(default_factory=list)

    @property
    def model(self) -> Json:
        model: Json = self.source["model"]
        return model

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def build_tokenizer(
    text: str, vocab_size: int, stop_ids: Sequence[int], *, has_template: bool
) -> MnnTokenizer:
    """Translate `tokenizer.json`. Raises `EngineError`, naming the step, for what MNN cannot do at all.

    A bare text gets the package's leading special tokens only where there is no chat template, whose
    text has them already: MNN puts them before both.
    """
    source: Json = json.loads(text)
    work = _Translation(source)
    byte_level = any(step["type"] == "ByteLevel" for step in _flat(source.get("decoder")))
    _find_symbols(work)
    normalizers = _normalizers(work)
    for item in _flat(source.get("pre_tokenizer")):
        work.pre_tokenizers += _split(work, item)
    added = sorted(source["added_tokens"], key=lambda token: (-len(token["content"]), token["id"]))
    prefix = [] if has_template else _prefix_ids(work)
    data = mtok.mtok(
        _vocabulary(work, vocab_size, byte_level),
        normalizers=normalizers,
        pre_tokenizers=work.pre_tokenizers,
        decoders=[step for item in _flat(source.get("decoder")) for step in _decode(work, item)]
        or [mtok.DECODE_FUSE],
        added=[
            mtok.AddedToken(
                t["id"], t["content"], t["special"], t.get("lstrip", False), t.get("rstrip", False)
            )
            for t in added
            if t["content"] not in work.aliases and t["content"] not in work.shown
        ],
        special_ids=[token["id"] for token in added if token["special"]],
        stop_ids=stop_ids,
        prefix_ids=prefix,
    )
    return MnnTokenizer(data, work.notes)


def placeholder_tokenizer(vocab_size: int, stop_ids: Sequence[int]) -> MnnTokenizer:
    """For a package without a tokenizer: MNN does not load without a file, and token ids suffice to run."""
    entries = [(f"<{number}>".encode(), number) for number in range(vocab_size)]
    data = mtok.mtok(
        mtok.Vocabulary(entries, merges=()),
        normalizers=[],
        pre_tokenizers=[],
        decoders=[mtok.DECODE_FUSE],
        added=[],
        special_ids=[],
        stop_ids=stop_ids,
        prefix_ids=[],
    )
    return MnnTokenizer(data, ["the package has no tokenizer: the directory runs on token ids only"])


def _flat(step: Json | None) -> list[Json]:
    """The steps of a sequence, however deep."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        children = next(step[key] for key in ("normalizers", "pretokenizers", "decoders") if key in step)
        return [inner for child in children for inner in _flat(child)]
    return [step]


def _find_symbols(work: _Translation) -> None:
    """Blanks and breaks that the model has symbols for: ChatGLM's `<n>` and `<|blank_8|>`.

    A single character takes the symbol's place in the vocabulary. A run of blanks becomes a control
    character on the way in and blanks on the way out.
    """
    vocab = _ids(work)
    free = iter(ALIASES)
    runs = []
    for step in _flat(work.source.get("normalizer")):
        old, new = step.get("pattern", {}).get("String", ""), step.get("content", "")
        if step["type"] != "Replace" or new not in vocab or old == "" or not old.isspace():
            continue
        if old == " " * len(old) and len(old) > 1:
            runs.append((len(old), old, new))
        elif len(old) == 1 and old != " ":
            work.shown[new] = old
    for _, old, new in sorted(runs):
        work.shown[new] = old
        if (alias := next(free, None)) is not None:
            work.aliases[new] = alias
        else:
            work.note(f"runs of more than {len(ALIASES) + 1} blanks are encoded as several shorter ones")
    for token in work.source["added_tokens"]:
        plain = not token["special"] and token.get("normalized", False)
        if plain and token["content"] not in work.shown and (alias := next(free, None)) is not None:
            work.aliases[token["content"]] = alias


def _normalizers(work: _Translation) -> list[bytes]:
    steps: list[bytes] = []
    for step in _flat(work.source.get("normalizer")):
        translate = _NORMALIZERS.get(step["type"])
        if translate is None:
            raise _unsupported(f"the normalizer {step['type']}")
        steps += translate(work, step)
    # Symbols that are spelled out in the text, as the library finds them
    spelled = [
        mtok.replace(symbol, alias) for symbol, alias in work.aliases.items() if symbol not in work.shown
    ]
    return [*spelled, *steps]


def _replace(work: _Translation, step: Json) -> list[bytes]:
    pattern, new = step["pattern"], step["content"]
    if "Regex" in pattern:
        return _replace_pattern(work, pattern["Regex"], new)
    old = pattern["String"]
    if old == CLUSTER_END:
        return []
    if old == TEXT_START:  # by now it stood for the dummy prefix or was taken away
        return []
    if new in work.aliases:
        return [mtok.replace(old, work.aliases[new])]
    # Characters in the vocabulary itself, and runs past the last alias, stay as they are
    return [] if new in work.shown else [mtok.replace(old, new)]


def _replace_pattern(work: _Translation, pattern: str, new: str) -> list[bytes]:
    """The patterns of our own SentencePiece conversion (see convert.tokenizer.sentencepiece_model)."""
    if new == CLUSTER_END:
        return []
    if pattern == " {2,}" and new == " ":
        return _collapse()
    if pattern.startswith(rf"\A{TEXT_START}") and new == "":
        return []  # a text that is one symbol and nothing else: it gets a dummy prefix here
    if pattern.startswith(rf"\A{TEXT_START}") and new == SPACE:
        return [mtok.replace(TEXT_START, SPACE)]
    if new == "" and r"\A +" in pattern:
        return _strip_blanks(work)
    raise _unsupported(f"the replacement of the pattern {pattern[:60]!r}")


def _collapse() -> list[bytes]:
    """Every run of blanks becomes one, however MNN counts on after a replacement."""
    lengths = [1 << power for power in range(LONGEST_RUN.bit_length() - 1, 0, -1)]
    return [mtok.replace(" " * length, " ") for length in [*lengths, 3, 2]]


def _strip_blanks(work: _Translation) -> list[bytes]:
    """No blanks at the ends of a text.

    MNN's own step for it takes line breaks along, and does nothing at the end (3.6.1). So a mark finds the
    start, and the end is cut off when the text is split.
    """
    work.pre_tokenizers.append(mtok.split_pattern(f"{SPACE}+$", False, "Removed"))
    steps = [*_collapse(), mtok.replace(f"{TEXT_START} ", TEXT_START)]
    if _marked(work):
        return steps
    return [mtok.prepend(TEXT_START), *steps, mtok.replace(TEXT_START, "")]


def _marked(work: _Translation) -> bool:
    """Whether a mark stands at the start of the text while it is normalized."""
    steps = _flat(work.source.get("normalizer"))
    return any(step.get("prepend") == TEXT_START for step in steps)


def _prepend(work: _Translation, step: Json) -> list[bytes]:
    return [mtok.prepend(step["prepend"])]


def _compose(work: _Translation, step: Json) -> list[bytes]:
    if not any(s["type"] == "Precompiled" for s in _flat(work.source.get("normalizer"))):
        work.note("characters written as a letter and separate accents are not composed (NFC)")
    return []


def _precompiled(work: _Translation, step: Json) -> list[bytes]:
    """The rules for single characters; those for several (a letter and its accents) have no place."""
    from tokenizers.normalizers import Precompiled

    rules = Precompiled(base64.b64decode(step["precompiled_charsmap"]))
    kept = set(work.shown.values())
    table = {}
    for code in range(1, sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cs", "Co", "Cn") or character in kept:
            continue
        new = rules.normalize_str(character)
        if new != character:
            table[code] = unicodedata.normalize("NFC", new)
    work.note("characters written as a letter and separate accents are not composed (NFKC)")
    return [mtok.character_map(table)]


def _strip(work: _Translation, step: Json) -> list[bytes]:
    return [mtok.strip(step.get("strip_left", True), step.get("strip_right", True))]


_NORMALIZERS: Mapping[str, Callable[[_Translation, Json], list[bytes]]] = {
    "Replace": _replace,
    "Prepend": _prepend,
    "NFC": _compose,
    "Precompiled": _precompiled,
    "Strip": _strip,
}


def _split(work: _Translation, step: Json) -> list[bytes]:
    kind = step["type"]
    if kind == "ByteLevel":
        if step.get("add_prefix_space"):
            raise _unsupported("a byte-level tokenizer that puts a blank before the text")
        return [mtok.split_byte_level(step.get("use_regex", True))]
    if kind == "Digits":
        # MNN's own step of this name knows 0 to 9 only
        digits = r"\p{N}" if step.get("individual_digits", False) else r"\p{N}+"
        return [mtok.split_pattern(digits, False, "Isolated")]
    if kind == "Split" and work.model["type"] == "Unigram":
        work.note("a text that spells out a piece such as <0x41> is taken for the piece")
        return []
    if kind == "Split" and "Regex" in step["pattern"] and step["behavior"] in mtok.SPLIT_BEHAVIORS:
        return [mtok.split_pattern(step["pattern"]["Regex"], step.get("invert", False), step["behavior"])]
    raise _unsupported(f"the pre-tokenizer {kind}")


def _decode(work: _Translation, step: Json) -> list[bytes]:
    kind = step["type"]
    if kind == "Replace" and "String" in step["pattern"]:
        return [mtok.decode_replace(step["pattern"]["String"], step["content"])]
    if kind == "Strip":
        return [mtok.decode_strip(step["content"], step["start"], step["stop"])]
    simple = {
        "ByteLevel": mtok.DECODE_BYTE_LEVEL,
        "ByteFallback": mtok.DECODE_BYTE_FALLBACK,
        "Fuse": mtok.DECODE_FUSE,
    }
    if kind not in simple:
        raise _unsupported(f"the decoder {kind}")
    return [simple[kind]]


def _ids(work: _Translation) -> dict[str, int]:
    """Ids by text, added tokens included."""
    model = work.model
    pieces = model["vocab"]
    ids = {t: i for i, (t, _) in enumerate(pieces)} if model["type"] == "Unigram" else dict(pieces)
    return {**ids, **{token["content"]: token["id"] for token in work.source["added_tokens"]}}


def _vocabulary(work: _Translation, vocab_size: int, byte_level: bool) -> mtok.Vocabulary:
    model, vocab = work.model, _ids(work)
    inside = {t for t, _ in model["vocab"]} if model["type"] == "Unigram" else set(model["vocab"])
    letters, replaced = byte_characters(), set(work.shown.values())
    entries: list[tuple[bytes, int]] = []
    for piece, number in vocab.items():
        written = work.shown.get(piece, piece)
        if piece in replaced:  # a symbol stands for this character wherever it occurs
            written = f"\0{number}"
        if byte_level and piece not in inside:
            written = "".join(letters[byte] for byte in written.encode())
        entries.append((written.encode(), number))
        if piece in work.aliases:
            entries.append((work.aliases[piece].encode(), number))
    # MNN indexes by id: a number without a token gets a text that no input has
    missing = set(range(vocab_size)) - set(vocab.values())
    entries += [(f"\0{number}".encode(), number) for number in missing]
    if any(len(text) > mtok.MAX_STRING for text, _ in entries):
        raise _unsupported(f"a token longer than {mtok.MAX_STRING} bytes")
    if model["type"] == "Unigram":
        return _unigram(work, entries, vocab)
    if model.get("unk_token") is not None and not model.get("byte_fallback"):
        work.note("characters outside the vocabulary are left out, not made the unknown token")
    if model.get("ignore_merges"):
        work.note("a word that is a token as a whole is still merged from its parts (ignore_merges)")
    merges = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    numbered = [(vocab[first], vocab[second]) for first, second in merges]
    return mtok.Vocabulary(entries, numbered, byte_fallback=bool(model.get("byte_fallback")))


def _unigram(
    work: _Translation, entries: list[tuple[bytes, int]], vocab: Mapping[str, int]
) -> mtok.Vocabulary:
    """Unigram scores by id. Bytes cost what an unknown character costs in the library."""
    model = work.model
    scores = [0.0] * (max(number for _, number in entries) + 1)
    for number, (_, score) in enumerate(model["vocab"]):
        scores[number] = score
    unknown = min(scores) - 10.0  # the library's price of an unknown character
    bytes_at = [vocab[f"<0x{byte:02X}>"] for byte in range(256) if f"<0x{byte:02X}>" in vocab]
    fallback = bool(model.get("byte_fallback")) and len(bytes_at) == 256
    for number in bytes_at if fallback else ():
        scores[number] = unknown
    unknown_id = model.get("unk_id") or 0
    scores[unknown_id] = unknown
    return mtok.Vocabulary(entries, None, scores, unknown_id, fallback)


def _prefix_ids(work: _Translation) -> list[int]:
    """Special tokens that the package puts before a bare text."""
    processor = work.source.get("post_processor") or {}
    ids: list[int] = []
    for item in processor.get("single", ()) if processor.get("type") == "TemplateProcessing" else ():
        if "SpecialToken" not in item:
            return ids
        ids += processor["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    return ids


def _unsupported(what: str) -> EngineError:
    return EngineError(
        f"MNN's tokenizer has nothing for {what}", hint="run this package with `pocketglm run` instead"
    )
