"""GGUF vocabularies: the same lists as their originals give the same ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convert.tokenizer.samples import MIXED_TEXTS, random_texts, train_sentencepiece
from convert.tokenizer.vocabularies import byte_level_metadata, convert, upstream
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import GGUF_RULES
from pocketglm.convert.tokenizer.gguf_vocabulary import build_gguf
from pocketglm.convert.tokenizer.sentencepiece_model import Surroundings, read_sentencepiece
from pocketglm.errors import CheckpointError, UnsupportedModelError
from pocketglm.generate.tokenizer import Tokenizer


def tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_json(doc.to_text(build_gguf(metadata, "model.gguf")))


@pytest.mark.parametrize("rule", GGUF_RULES)
def test_every_rule_brings_composed_text_back(rule: str) -> None:
    import unicodedata

    ours = tokenizer(byte_level_metadata(pre=rule))
    for text in [*MIXED_TEXTS, *random_texts(40)]:
        composed = unicodedata.normalize("NFC", text)
        assert ours.decode(ours.encode(composed)) == composed


def test_smollm_rule_as_its_own_tokenizer_json() -> None:
    """SmolLM2's tokenizer.json: single digits, then GPT-2's words."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    metadata = byte_level_metadata(pre="smollm")
    model = build_gguf(metadata, "x")["model"]
    library = Library(models.BPE(model["vocab"], [tuple(pair) for pair in model["merges"]]))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    ours = tokenizer(metadata)
    for text in [*MIXED_TEXTS, *random_texts(100)]:
        assert ours.encode(text) == library.encode(text).ids or "<think>" in text


def test_token_types_and_ends() -> None:
    ours = tokenizer(byte_level_metadata(add_bos_token=True))
    end, think = ours.vocab_size - 2, ours.vocab_size - 1
    assert ours.special_ids == {end}
    assert ours.encode("<think><|im_end|>", prompt=True, allow_special=True) == [7, think, end]
    assert tokenizer(byte_level_metadata()).encode("", prompt=True) == []


def test_sentencepiece_lists(tmp_path: Path) -> None:
    path = train_sentencepiece(
        tmp_path / "m.model",
        "bpe",
        700,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<|x|>"],
    )
    model, theirs = read_sentencepiece(path), upstream(path)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [piece.text for piece in model.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in model.pieces],
        "tokenizer.ggml.token_type": [int(piece.kind) for piece in model.pieces],
        "tokenizer.ggml.bos_token_id": 1,
    }
    ours = tokenizer(metadata)
    for text in [*MIXED_TEXTS, *random_texts(100)]:
        assert ours.encode(text, prompt=True) == [1, *theirs.encode(text)]
    same = convert(path, Surroundings(prefix=("<s>",)))
    assert ours.encode(MIXED_TEXTS[-1]) == same.encode(MIXED_TEXTS[-1])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "t5"}, UnsupportedModelError, "'t5' is not supported"),
        ({"model": None}, UnsupportedModelError, "None is not supported"),
        ({"pre": "tekken"}, UnsupportedModelError, "'tekken'"),
        ({"tokens": None}, CheckpointError, "tokenizer.ggml.tokens"),
        ({"merges": None}, CheckpointError, "tokenizer.ggml.merges"),
        ({"merges": ["abc"]}, CheckpointError, "not two tokens"),
        ({"token_type": [1, 2]}, CheckpointError, "2 token types"),
        ({"token_type": [99] * 902}, CheckpointError, "99"),
        ({"tokens": ["a", "a"], "token_type": None}, CheckpointError, "'a' stands twice"),
        ({"model": "llama", "scores": [0.0]}, CheckpointError, "1 scores"),
    ],
)
def test_damaged_metadata(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_gguf(byte_level_metadata(**changes), "model.gguf")
