"""Vocabulary slimming: a tokenizer that knows only some of its tokens, under new ids.

Enters: a `tokenizer.json` and the ids to keep. Leaves: the kept ids, closed under what the tokenizer
needs, and a `tokenizer.json` that numbers them 0, 1, 2, ... in their order.

The closure adds all special tokens, all single bytes, the unknown token, and for every kept byte-pair
token each token that forms on the way to it. Then a text whose tokens are all kept gets exactly the
mapped ids: the merges that happen are the same ones, and nothing new competes with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.merges import merge_steps
from pocketglm.errors import CheckpointError, InputError
from pocketglm.generate.detokenizer import byte_characters

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>\Z")


def read_kept_tokens(path: Path, tokenizer_json: str) -> list[int]:
    """Token ids from a `--keep-tokens` file, sorted.

    The file is a JSON list of ids and of token texts (written as in the vocabulary), or plain lines
    with one id each; empty lines and lines that start with `#` do not count.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", where=path) from None
    entries = _json_entries(text, path) if text.lstrip().startswith("[") else _line_entries(text, path)
    vocab = doc.vocabulary(json.loads(tokenizer_json))
    known = set(vocab.values())
    kept = set()
    for entry in entries:
        token_id = vocab.get(entry) if isinstance(entry, str) else entry
        if token_id not in known:
            kind = "text" if isinstance(entry, str) else "id"
            raise InputError(f"the vocabulary has no token with the {kind} {entry!r}", where=path)
        kept.add(int(token_id))
    if not kept:
        raise InputError("names no token to keep", where=path)
    return sorted(kept)


def _json_entries(text: str, path: Path) -> list[int | str]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not a JSON list: {error}", where=path) from None
    for entry in entries:
        if type(entry) not in (int, str):
            raise InputError(f"entry {str(entry)[:40]!r} is neither an id nor a token text", where=path)
    return list(entries)


def _line_entries(text: str, path: Path) -> list[int | str]:
    entries: list[int | str] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if not (word.isascii() and word.isdigit()) or len(word) > 9:
            raise InputError(
                f"line {number} is {word[:40]!r}, expected a token id",
                where=path,
                hint="give token texts as a JSON list",
            )
        entries.append(int(word))
    return entries


def close_kept_tokens(tokenizer_json: str, kept: Iterable[int]) -> list[int]:
    """`kept` and every token that the slim tokenizer needs besides, sorted."""
    tokenizer = json.loads(tokenizer_json)
    vocab = doc.vocabulary(tokenizer)
    texts = {token_id: text for text, token_id in vocab.items()}
    wanted = set(kept) | {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    unknown_ids = sorted(wanted - set(texts))
    if unknown_ids:
        raise InputError(f"the vocabulary has no token with the id {unknown_ids[0]}")
    wanted |= _needed_anyway(tokenizer, vocab)
    if tokenizer["model"]["type"] == "BPE":
        added = {token["id"] for token in tokenizer["added_tokens"]}
        wanted |= _ancestors([texts[i] for i in wanted - added], tokenizer["model"])
    return sorted(wanted)


def _needed_anyway(tokenizer: doc.Json, vocab: dict[str, int]) -> set[int]:
    """Tokens that every text may need.

    Those are the byte tokens, the unknown token, what decoding turns into something else (the blank, line
    breaks; spelled in bytes they would not come back), and the worst unigram piece, which sets the cost of
    unknown text.
    """
    model = tokenizer["model"]
    decoder = tokenizer.get("decoder") or {}
    replaced = {
        step["pattern"].get("String") for step in decoder.get("decoders", [decoder]) if "pattern" in step
    }
    replaced |= {step["replacement"] for step in decoder.get("decoders", [decoder]) if "replacement" in step}
    if decoder.get("type") == "ByteLevel":
        replaced |= set(byte_characters().values())
    needed = {i for text, i in vocab.items() if text in replaced or _BYTE_TOKEN.match(text)}
    if model["type"] == "Unigram":
        needed.add(min(range(len(model["vocab"])), key=lambda i: model["vocab"][i][1]))
        return needed if model["unk_id"] is None else needed | {model["unk_id"]}
    unknown = model.get("unk_token")
    return needed if unknown is None else needed | {vocab[unknown]}


def merge_pairs(model: doc.Json) -> list[tuple[str, str]]:
    """The merges of a byte-pair model, in either spelling of `tokenizer.json`."""
    pairs: list[tuple[str, str]] = []
    for merge in model["merges"]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if len(pair) != 2:
            raise CheckpointError(f"merge {merge!r} in tokenizer.json is not two tokens")
        pairs.append((pair[0], pair[1]))
    return pairs


def _ancestors(texts: Sequence[str], model: doc.Json) -> set[int]:
    """Ids of every token that forms on the way to one of `texts`, its single characters included."""
    vocab = model["vocab"]
    ranks = {pair: rank for rank, pair in enumerate(merge_pairs(model))}
    found: set[str] = set()
    for text in texts:
        found.update(text)
        found.update(merge_steps(text, ranks))
    return {vocab[text] for text in found if text in vocab}


def slim_tokenizer(tokenizer: doc.Json, kept: Sequence[int]) -> doc.Json:
    """The tokenizer of the rows `kept`, closed and sorted: row `kept[i]` becomes token `i`.

    Rows without a token (padding) keep their place in the numbering.
    """
    new_id = {row: number for number, row in enumerate(kept)}
    model = dict(tokenizer["model"])
    if model["type"] == "Unigram":
        rows = [row for row in kept if row < len(model["vocab"])]
        model["vocab"] = [model["vocab"][row] for row in rows]
        model["unk_id"] = None if model["unk_id"] is None else new_id[model["unk_id"]]
    else:
        model["vocab"] = {text: new_id[i] for text, i in model["vocab"].items() if i in new_id}
        model["merges"] = [
            list(pair)
            for pair in merge_pairs(model)
            if all(t in model["vocab"] for t in (*pair, "".join(pair)))
        ]
    added = [
        {**token, "id": new_id[token["id"]]} for token in tokenizer["added_tokens"] if token["id"] in new_id
    ]
    post_processor = _renumbered(tokenizer.get("post_processor"), new_id)
    return {**tokenizer, "model": model, "added_tokens": added, "post_processor": post_processor}


def _renumbered(step: object, new_id: dict[int, int]) -> object:
    """A post-processor with the new ids of the special tokens it adds."""
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Sequence":
        return {**step, "processors": [_renumbered(inner, new_id) for inner in step["processors"]]}
    if step.get("type") == "TemplateProcessing":
        tokens = {
            name: {**t, "ids": [new_id[i] for i in t["ids"]]} for name, t in step["special_tokens"].items()
        }
        return {**step, "special_tokens": tokens}
    return step
