"""A package's tokenizer in MNN's own: the same ids, and the text back, in Chinese, English and code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from convert.tokenizer.samples import CHINESE, CODE, ENGLISH, MIXED_TEXTS, corpus, train_sentencepiece
from engine.contract_specs import SPECS
from engine.mnn.graphs import need_mnn
from engine.tiny_packages import random_tensors, write_package
from pocketglm.architecture.chatglm import BLANKS
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import (
    DIGITS_RULE,
    GPT2_RULE,
    LLAMA3_RULE,
    QWEN2_RULE,
    SplittingRule,
    build_byte_level,
)
from pocketglm.convert.tokenizer.sentencepiece_model import (
    Surroundings,
    build_sentencepiece,
    read_sentencepiece,
)
from pocketglm.errors import EngineError
from pocketglm.export.mnn_llm import MnnLlm, export_mnn_llm
from pocketglm.export.mnn_llm.tokenizer import ALIASES, MnnTokenizer, build_tokenizer
from pocketglm.generate.tokenizer import Tokenizer
from pocketglm.quantize.formats import WeightFormat

ORDINARY = [CHINESE, ENGLISH, CODE, *CHINESE.splitlines(), *ENGLISH.splitlines(), *CODE.splitlines()]
ALL = [text for text in MIXED_TEXTS if "\0" not in text]  # MNN's interface ends a text at a zero byte
GLM_TOKENS = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")

Host = Callable[[MnnTokenizer], MnnLlm]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A model that any tokenizer file can be put into: MNN loads none without a model."""
    need_mnn()
    folder = tmp_path_factory.mktemp("host")
    spec = SPECS["plain"]
    package = write_package(folder / "package", spec, random_tensors(spec), WeightFormat(32))
    path = export_mnn_llm(package, folder / "exported").path

    def load(tokenizer: MnnTokenizer) -> MnnLlm:
        (path / "tokenizer.mtok").write_bytes(tokenizer.data)
        return MnnLlm(path, threads=1)

    return load


def compare(host: Host, text: str, texts: Sequence[str] = ALL) -> list[str]:
    """Asserts equal texts from equal ids; returns the texts with other ids."""
    tokenizer = Tokenizer.from_json(text)
    with host(build_tokenizer(text, tokenizer.vocab_size, [], has_template=True)) as model:
        different = []
        for sample, found in zip(texts, model.encode(texts), strict=True):
            expected = tokenizer.encode(sample, allow_special=True)
            if found != expected:
                different.append(sample)
            if not tokenizer.special_ids & set(expected):
                # MNN streams token by token and does not know which one is the first
                decoded, shown = model.decode(expected).decode(), tokenizer.decode(expected)
                assert decoded.lstrip(" ") == shown.lstrip(" ")
    return different


def sentencepiece(path: Path, around: Surroundings | None = None) -> str:
    return doc.to_text(build_sentencepiece(read_sentencepiece(path), around or Surroundings(), path))


def byte_level(rule: SplittingRule) -> str:
    """A small vocabulary trained on our texts."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(corpus(), trainer)
    model = json.loads(library.to_str())["model"]
    end = len(model["vocab"])
    added = [doc.added_token(end + i, t, special=True) for i, t in enumerate(("<|im_start|>", "<|结束|>"))]
    return doc.to_text(build_byte_level(model["vocab"], model["merges"], rule, added))


# Real vocabularies


def test_smollm2(host: Host, smollm2: Path) -> None:
    from pocketglm.architecture.registry import model_from_config
    from pocketglm.checkpoint import open_checkpoint
    from pocketglm.convert.tokenizer import convert_tokenizer

    with open_checkpoint(smollm2) as checkpoint:
        text = convert_tokenizer(checkpoint, model_from_config(checkpoint))
    assert text is not None
    assert compare(host, text) == []


def test_chatglm3(host: Host, shared_data: Path) -> None:
    text = sentencepiece(shared_data / "chatglm3-tokenizer.model", Surroundings(appended=GLM_TOKENS))
    assert compare(host, text) == []


def test_stories260k(host: Host, shared_data: Path) -> None:
    from pocketglm.architecture.registry import model_from_config
    from pocketglm.checkpoint import open_checkpoint
    from pocketglm.convert.tokenizer import convert_tokenizer

    with open_checkpoint(shared_data / "stories260k") as checkpoint:
        text = convert_tokenizer(checkpoint, model_from_config(checkpoint))
    assert text is not None
    assert compare(host, text) == []


# Every kind of tokenizer


@pytest.mark.parametrize(
    "rule", [GPT2_RULE, DIGITS_RULE, QWEN2_RULE, LLAMA3_RULE], ids=["gpt2", "digits", "qwen2", "llama3"]
)
def test_byte_level(host: Host, rule: SplittingRule) -> None:
    different = compare(host, byte_level(rule))
    composed = [text for text in different if not rule.normal_form_c]
    assert not set(different) & set(ORDINARY)
    assert composed == []


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_plain_sentencepiece(host: Host, tmp_path: Path, kind: str) -> None:
    path = train_sentencepiece(
        tmp_path / "plain.model",
        kind,
        800,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    different = compare(host, sentencepiece(path))
    # MNN's unigram search takes a spelled-out byte piece for the piece
    assert different == ([] if kind == "bpe" else ["<0x41><0x0A> <0xE4><0xBD>"])


def test_sentencepiece_with_character_rules(host: Host, tmp_path: Path) -> None:
    """NFKC for single characters, blanks collapsed and stripped; no composing of accents."""
    path = train_sentencepiece(tmp_path / "rules.model", "bpe", 800, byte_fallback=True)
    text = sentencepiece(path)
    assert not set(compare(host, text)) & set(ORDINARY)
    notes = build_tokenizer(text, 800, [], has_template=True).notes
    assert notes == ["characters written as a letter and separate accents are not composed (NFKC)"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_chatglm_symbols(host: Host, tmp_path: Path, kind: str) -> None:
    """ChatGLM-6B's symbols for line breaks, tabs and runs of blanks."""
    blanks = [f"<|blank_{count}|>" for count in range(2, 81)]
    path = train_sentencepiece(
        tmp_path / "glm.model",
        kind,
        900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<n>", "<|tab|>", *blanks],
        control_symbols=["[MASK]", "[gMASK]", "<sop>"],
    )
    text = sentencepiece(path, Surroundings(replacements=(("\n", "<n>"), ("\t", "<|tab|>"), *BLANKS)))
    different = compare(host, text)
    longest = len(ALIASES) + 1
    for sample in different:
        assert " " * (longest + 1) in sample or "<0x41>" in sample
    notes = build_tokenizer(text, 900, [], has_template=True).notes
    assert f"runs of more than {longest} blanks are encoded as several shorter ones" in notes


# What surrounds the text


def test_prefix_stands_before_bare_texts_only(host: Host, shared_data: Path) -> None:
    path = shared_data / "chatglm3-tokenizer.model"
    text = sentencepiece(path, Surroundings(appended=GLM_TOKENS, prefix=("[gMASK]", "<sop>")))
    tokenizer = Tokenizer.from_json(text)
    bare = tokenizer.encode("你好", prompt=True)
    with host(build_tokenizer(text, tokenizer.vocab_size, [], has_template=False)) as model:
        assert model.encode(["你好"]) == [bare]
    with host(build_tokenizer(text, tokenizer.vocab_size, [], has_template=True)) as model:
        assert model.encode(["你好"]) == [bare[2:]]


def test_longer_special_tokens_come_first(host: Host) -> None:
    source = json.loads(byte_level(GPT2_RULE))
    end = 1 + max(token["id"] for token in source["added_tokens"])
    source["added_tokens"] += [doc.added_token(end + i, t, special=True) for i, t in enumerate(("<a", "<a>"))]
    text = doc.to_text(source)
    with host(build_tokenizer(text, end + 2, [], has_template=True)) as model:
        assert model.encode(["<a><a"]) == [[end + 1, end]]


def test_numbers_without_a_token_are_filled(host: Host) -> None:
    text = byte_level(GPT2_RULE)
    tokenizer = Tokenizer.from_json(text)
    with host(build_tokenizer(text, tokenizer.vocab_size + 50, [], has_template=True)) as model:
        assert model.encode(["hello"]) == [tokenizer.encode("hello")]


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}),
        (
            "pre_tokenizer",
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        ),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}),
        ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    ],
)
def test_steps_that_mnn_lacks_are_refused(part: str, step: dict[str, object]) -> None:
    source = {**json.loads(byte_level(GPT2_RULE)), part: step}
    with pytest.raises(EngineError, match="MNN's tokenizer has nothing for"):
        build_tokenizer(doc.to_text(source), 800, [], has_template=True)
