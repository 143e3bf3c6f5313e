"""Small vocabularies in the layouts that models ship, and the libraries they are compared with."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from convert.tokenizer.samples import corpus
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import GROUPED_DIGITS, SINGLE_DIGITS
from pocketglm.convert.tokenizer.sentencepiece_model import (
    Surroundings,
    build_sentencepiece,
    read_sentencepiece,
)
from pocketglm.generate.detokenizer import byte_characters
from pocketglm.generate.tokenizer import Tokenizer

BYTE_OF = {character: byte for byte, character in byte_characters().items()}
PATTERNS = {"GLM-4": GROUPED_DIGITS, "Qwen": SINGLE_DIGITS}


def trained(pattern: str, size: int = 900) -> Library:
    """A byte-level BPE tokenizer trained on our own texts."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return library


@lru_cache
def trained_ranks(pattern: str) -> dict[bytes, int]:
    vocab = trained(pattern).get_vocab()
    return {bytes(BYTE_OF[c] for c in token): rank for token, rank in vocab.items()}


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    lines = [base64.b64encode(token).decode() + f" {rank}\n" for token, rank in ranks.items()]
    path.write_text("".join(lines), encoding="ascii")
    return path


def write_slow_files(directory: Path, library: Library, **config: object) -> None:
    """`vocab.json`, `merges.txt` and the configuration, as GPT-2 and Qwen ship them."""
    model = json.loads(library.to_str())["model"]
    directory.joinpath("vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    directory.joinpath("merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    directory.joinpath("tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def byte_level_metadata(**changes: Any) -> dict[str, Any]:
    model = json.loads(trained(SINGLE_DIGITS).to_str())["model"]
    tokens = [*model["vocab"], "<|im_end|>", "<think>"]
    metadata = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": tokens,
        "token_type": [1] * (len(tokens) - 2) + [3, 4],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": 7,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in metadata.items() if value is not None}


def convert(path: Path, around: Surroundings | None = None) -> Tokenizer:
    return Tokenizer.from_json(document(path, around))


def document(path: Path, around: Surroundings | None = None) -> str:
    """The `tokenizer.json` of a SentencePiece model."""
    return doc.to_text(build_sentencepiece(read_sentencepiece(path), around or Surroundings(), path))


def upstream(path: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
