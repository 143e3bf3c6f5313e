"""A small checkpoint in ChatGLM-6B's own layout: random weights and a real, small tokenizer.

Enters: a folder. Leaves: a checkpoint as the model's authors lay it out: `config.json`, sharded
`pytorch_model-*.bin`, and `ice_text.model`, a SentencePiece model with the release's special pieces in
their order. Its answers mean nothing; the files, the conversion and the way of running are the real ones.
"""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

from pocketglm.convert.random_checkpoint import ChatGLMSize, write_random_checkpoint

TOKENIZER_FILE = "ice_text.model"
FIRST_PIECES = ("<unk>", "<s>", "</s>", "<pad>", "<n>", "▁")
SPECIAL_PIECES = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
BLANK_PIECES = ("<|tab|>", *(f"<|blank_{count}|>" for count in range(2, 81)))
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
RESERVED_ROWS = 528
"""Rows from [MASK] to the end of the vocabulary: 344 pieces, and padding to a multiple of 32."""

TRAINED_PIECES = 1000
"""Most pieces to learn; a text this short gives fewer."""


def write_demo_checkpoint(directory: Path, seed: int = 0) -> Path:
    """Write the checkpoint (a few MiB) and return its directory."""
    tokenizer, ordinary = build_tokenizer()
    size = ChatGLMSize(
        blocks=4, hidden=256, heads=8, vocabulary=ordinary + RESERVED_ROWS, shards=2, seed=seed
    )
    write_random_checkpoint(directory, size)
    (directory / TOKENIZER_FILE).write_bytes(tokenizer)
    return directory


def build_tokenizer() -> tuple[bytes, int]:
    """A SentencePiece model in the release's layout, and its number of pieces before [MASK]."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(_train())
    kinds = model.SentencePiece.Type
    learned = [
        (p.piece, p.score) for p in model.pieces if p.type == kinds.NORMAL and p.piece not in FIRST_PIECES
    ]
    del model.pieces[:]

    def add(texts: tuple[str, ...], kind: Any, score: float = 0.0) -> None:
        for text in texts:
            model.pieces.add(piece=text, score=score, type=kind)

    add(FIRST_PIECES[:1], kinds.UNKNOWN)
    add(FIRST_PIECES[1:4], kinds.CONTROL)
    add(FIRST_PIECES[4:5], kinds.USER_DEFINED)
    add(FIRST_PIECES[5:], kinds.NORMAL, score=-3.0)
    for text, score in learned:
        add((text,), kinds.NORMAL, score)
    ordinary = len(model.pieces)
    add(SPECIAL_PIECES, kinds.CONTROL)
    add(BLANK_PIECES, kinds.USER_DEFINED)
    add(BYTE_PIECES, kinds.BYTE)
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    return model.SerializeToString(), ordinary


def _train() -> bytes:
    """A unigram model of the benchmark's text, which is half English and half Chinese."""
    import sentencepiece

    text = files("pocketglm.generate").joinpath("bench_text.txt").read_text("utf-8")
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=output,
        model_type="unigram",
        vocab_size=TRAINED_PIECES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",  # full-width punctuation stays what it is
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return output.getvalue()
