"""Which file a tokenizer and a chat template come from, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convert.tokenizer.samples import MIXED_TEXTS, train_sentencepiece
from convert.tokenizer.vocabularies import (
    PATTERNS,
    byte_level_metadata,
    trained,
    trained_ranks,
    upstream,
    write_ranks,
    write_slow_files,
)
from pocketglm.architecture.tokenizer_quirks import TokenizerQuirks
from pocketglm.checkpoint import open_checkpoint
from pocketglm.convert.tokenizer import chat_template_of, close_kept_tokens, convert_tokenizer
from pocketglm.errors import CheckpointError, UnsupportedModelError
from pocketglm.generate.tokenizer import Tokenizer


def checkpoint(directory: Path, format_: str = "safetensors", **metadata: Any) -> Any:
    """What the tokenizer converter looks at in a checkpoint."""
    return SimpleNamespace(format=format_, path=directory, directory=directory, metadata=metadata)


def architecture(rows: int = 2000, template: str | None = None, **quirks: Any) -> Any:
    """What it looks at in an architecture."""
    return SimpleNamespace(
        spec=SimpleNamespace(vocab_size=rows), template=template, tokenizer=TokenizerQuirks(**quirks)
    )


def converted(directory: Path, *args: Any, **quirks: Any) -> Tokenizer:
    text = convert_tokenizer(checkpoint(directory), architecture(*args, **quirks))
    assert text is not None
    return Tokenizer.from_json(text)


def small_model(directory: Path) -> Path:
    return train_sentencepiece(
        directory / "tokenizer.model", "bpe", 700, byte_fallback=True, normalization_rule_name="identity"
    )


def test_no_files_mean_no_tokenizer(tmp_path: Path) -> None:
    assert convert_tokenizer(checkpoint(tmp_path), architecture()) is None
    assert convert_tokenizer(checkpoint(tmp_path, "gguf"), architecture()) is None
    assert chat_template_of(checkpoint(tmp_path), architecture()) is None


def test_plain_sentencepiece_starts_with_its_bos(tmp_path: Path) -> None:
    theirs = upstream(small_model(tmp_path))
    assert converted(tmp_path).encode("你好", prompt=True) == [1, *theirs.encode("你好")]
    tmp_path.joinpath("tokenizer_config.json").write_text(
        json.dumps(
            {"add_bos_token": False, "added_tokens_decoder": {"700": {"content": "<x>", "special": True}}}
        )
    )
    tokenizer = converted(tmp_path)
    assert tokenizer.encode("你好", prompt=True) == theirs.encode("你好")
    assert (700 in tokenizer.special_ids) == (theirs.vocab_size() == 700)


def test_the_family_names_its_file(tmp_path: Path) -> None:
    path = small_model(tmp_path)
    count = upstream(path).vocab_size()
    path.rename(tmp_path / "ice_text.model")
    write_slow_files(tmp_path, trained(r"\S+", 300), tokenizer_class="GPT2Tokenizer")
    quirks = {"kind": "sentencepiece", "file": "ice_text.model", "appended_tokens": ("[gMASK]", "<sop>")}
    tokenizer = converted(tmp_path, **quirks, suffix_tokens=("[gMASK]", "<sop>"))
    assert tokenizer.encode("", prompt=True) == [count, count + 1]
    assert converted(tmp_path, file="absent").vocab_size == 300


def test_tiktoken_of_a_family(tmp_path: Path) -> None:
    write_ranks(tmp_path / "tokenizer.model", trained_ranks(PATTERNS["GLM-4"]))
    tokenizer = converted(
        tmp_path,
        kind="tiktoken",
        file="tokenizer.model",
        pattern=PATTERNS["GLM-4"],
        appended_tokens=("<|endoftext|>", "[gMASK]", "<sop>"),
        prefix_tokens=("[gMASK]", "<sop>"),
    )
    assert tokenizer.encode("", prompt=True) == [901, 902]


def test_a_tokenizer_json_is_taken_over(tmp_path: Path) -> None:
    library = trained(PATTERNS["Qwen"])
    library.enable_truncation(3)
    library.enable_padding(length=9)
    library.add_special_tokens(["<|im_end|>"])
    library.save(str(tmp_path / "tokenizer.json"))
    text = convert_tokenizer(checkpoint(tmp_path), architecture())
    assert text is not None
    sections = json.loads(text)
    assert sections["truncation"] is sections["padding"] is None
    library.no_truncation()
    library.no_padding()
    for sample in MIXED_TEXTS:
        assert Tokenizer.from_json(text).encode(sample) == library.encode(sample).ids


def test_merges_as_text_and_a_model_without_a_type(tmp_path: Path) -> None:
    """Older files write `"a b"` for a merge, and leave the type out."""
    sections = json.loads(trained(PATTERNS["Qwen"]).to_str())
    del sections["model"]["type"]
    sections["model"]["merges"] = [" ".join(pair) for pair in sections["model"]["merges"]]
    tmp_path.joinpath("tokenizer.json").write_text(json.dumps(sections))
    text = convert_tokenizer(checkpoint(tmp_path), architecture())
    assert text is not None
    whole = Tokenizer.from_json(text)
    kept = close_kept_tokens(text, whole.encode("the ferry"))
    small = convert_tokenizer(checkpoint(tmp_path), architecture(), kept)
    assert small is not None
    assert [kept[i] for i in Tokenizer.from_json(small).encode("the ferry")] == whole.encode("the ferry")


def test_added_tokens_with_gaps_keep_their_ids(tmp_path: Path) -> None:
    sections = json.loads(trained(PATTERNS["Qwen"], 300).to_str())
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    sections["added_tokens"] = [
        {"id": 310, "content": "<a>", **entry},
        {"id": 305, "content": "<b>", **entry},
    ]
    tmp_path.joinpath("tokenizer.json").write_text(json.dumps(sections))
    tokenizer = converted(tmp_path)
    assert tokenizer.encode("<a><b>", allow_special=True) == [310, 305]
    assert tokenizer.vocab_size == 311
    assert converted(tmp_path, 308).token_id("<a>") is None  # the model has no row for it


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    trained(PATTERNS["Qwen"], 300).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has the id 299, but the model has 280 rows"):
        converted(tmp_path, 280)


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ("{", CheckpointError, "cannot be read as JSON"),
        ("[]", UnsupportedModelError, "type None"),
        ('{"model": {"type": "WordPiece"}}', UnsupportedModelError, "'WordPiece'"),
        ('{"model": {"type": "BPE"}, "decoder": {"type": "CTC"}}', CheckpointError, "CTC is unknown"),
        ('{"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}', CheckpointError, "cannot read it"),
    ],
)
def test_damaged_tokenizer_json(tmp_path: Path, sections: str, error: type[Exception], message: str) -> None:
    tmp_path.joinpath("tokenizer.json").write_text(sections)
    with pytest.raises(error, match=message):
        converted(tmp_path)


def test_gguf(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path, "gguf", **byte_level_metadata(), **{"tokenizer.chat_template": "{{ messages }}"}
    )
    text = convert_tokenizer(source, architecture())
    assert text is not None
    assert Tokenizer.from_json(text).decode(Tokenizer.from_json(text).encode("你好")) == "你好"
    assert chat_template_of(source, architecture()) == "{{ messages }}"


def test_stories_checkpoint(shared_data: Path) -> None:
    from pocketglm.architecture.registry import model_from_config

    with open_checkpoint(shared_data / "stories260k") as source:
        family = model_from_config(source)
        text = convert_tokenizer(source, family)
    assert text is not None
    theirs = upstream(shared_data / "stories260k" / "tokenizer.model")
    sample = "Once upon a time, there was a little girl named Lily."
    assert Tokenizer.from_json(text).encode(sample, prompt=True) == [1, *theirs.encode(sample)]
    assert dataclasses.is_dataclass(family)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "only", "template": "o"}], "o"),
        ("{{ bos_token }}x", "{% set bos_token = '<s>' %}\n{{ bos_token }}x"),
        ("{{ eos_token }}", "{% set eos_token = '</s>\\n\\'' %}\n{{ eos_token }}"),
    ],
)
def test_templates_in_the_settings(tmp_path: Path, template: object, expected: str) -> None:
    settings = {"chat_template": template, "bos_token": "<s>", "eos_token": {"content": "</s>\n'"}}
    tmp_path.joinpath("tokenizer_config.json").write_text(json.dumps(settings))
    assert chat_template_of(checkpoint(tmp_path), architecture()) == expected
    assert chat_template_of(checkpoint(tmp_path), architecture(template="ours")) == "ours"
    tmp_path.joinpath("chat_template.jinja").write_text("file")
    assert chat_template_of(checkpoint(tmp_path), architecture()) == "file"


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("tokenizer_config.json").write_text('{"chat_template": {"a": 1}}')
    with pytest.raises(CheckpointError, match="expected text"):
        chat_template_of(checkpoint(tmp_path), architecture())
