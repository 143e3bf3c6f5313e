"""Constrained answers: what a schema allows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from convert.tokenizer.samples import train_sentencepiece
from convert.tokenizer.vocabularies import convert
from generate.tiny_models import END, VOCAB
from pocketglm.errors import EngineError, InputError
from pocketglm.generate.model import Model, load
from pocketglm.serve.grammar import Grammar, GrammarCompiler

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(causal_path: Path) -> Model:
    return load(causal_path, "reference")


@pytest.fixture(scope="module")
def compiler(model: Model) -> GrammarCompiler:
    return GrammarCompiler(model.tokenizer, VOCAB, model.defaults.end_tokens)


def allowed(grammar: Grammar) -> set[int]:
    return set(np.flatnonzero(np.isfinite(grammar.masked(np.zeros(VOCAB, np.float32)))).tolist())


def test_every_way_through_a_grammar_fits_the_schema(compiler: GrammarCompiler, model: Model) -> None:
    start = compiler.from_schema(SCHEMA)
    texts = set()
    for seed in range(20):
        random, grammar, ids = np.random.default_rng(seed), start.fork(), list[int]()
        while not grammar.finished:
            token = int(random.choice(sorted(allowed(grammar))))
            if token == END:
                break
            grammar.accept(token)
            ids.append(token)
        texts.add(model.tokenizer.decode(ids))
    found = [json.loads(text) for text in texts]
    assert {entry["colour"] for entry in found} == {"red", "blue"}
    assert all(isinstance(entry["count"], int) and entry["count"] <= 9 for entry in found)


def test_a_mask_leaves_the_logits_of_what_is_allowed(compiler: GrammarCompiler, model: Model) -> None:
    grammar = compiler.from_schema(SCHEMA)
    logits = np.arange(VOCAB, dtype=np.float32)
    masked = grammar.masked(logits)
    (brace,) = model.tokenizer.encode("{")
    assert allowed(grammar) == {brace}
    assert masked[brace] == brace
    assert logits[0] == 0  # the caller's array is left alone


def test_the_end_is_allowed_only_where_the_text_is_complete(compiler: GrammarCompiler, model: Model) -> None:
    grammar = compiler.from_schema({"type": "integer"})
    assert END not in allowed(grammar)
    grammar.accept(model.tokenizer.encode("7")[0])
    assert END in allowed(grammar)
    assert not grammar.finished


def test_a_token_that_was_not_allowed(compiler: GrammarCompiler, model: Model) -> None:
    with pytest.raises(EngineError, match="gave up"):
        compiler.from_schema(SCHEMA).accept(model.tokenizer.encode("x")[0])


@pytest.mark.parametrize(
    "schema",
    [{"type": "object", "unevaluatedItems": False}, {"type": "nothing"}, {"$ref": "#/missing"}],
)
def test_schemas_that_are_refused(compiler: GrammarCompiler, schema: dict[str, object]) -> None:
    with pytest.raises(InputError, match="the grammar cannot be used"):
        compiler.from_schema(schema)


def test_a_model_without_an_end_has_no_constrained_answers(model: Model) -> None:
    with pytest.raises(InputError, match="no end token"):
        GrammarCompiler(model.tokenizer, VOCAB, ()).from_schema(SCHEMA)


def test_tokenizers_that_put_a_blank_before_a_text(tmp_path: Path) -> None:
    tokenizer = convert(train_sentencepiece(tmp_path / "t.model", "bpe", 900, byte_fallback=True))
    grammar = GrammarCompiler(tokenizer, tokenizer.vocab_size, [2]).from_lark('start: "the colour is red"')
    ids: list[int] = []
    while not grammar.finished:
        token = int(np.argmax(grammar.masked(np.zeros(tokenizer.vocab_size, np.float32))))
        if token == 2:
            break
        grammar.accept(token)
        ids.append(token)
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"the colour is red"
