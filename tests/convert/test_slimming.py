"""A smaller vocabulary: fewer rows, a tokenizer that agrees, and the same logits for what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pocketglm
from convert.checkpoints import LLAMA, llama_tensors, write_llama
from pocketglm.convert import ConvertSettings, convert
from pocketglm.errors import InputError
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings

EXACT = QuantizeSettings(WeightFormat(32), WeightFormat(32))
INT4 = QuantizeSettings(WeightFormat(4, 32), WeightFormat(4, 32))
IMAGE_ROWS = 20000


@pytest.mark.parametrize("quantize", [EXACT, INT4], ids=["float32", "int4"])
def test_logits_of_kept_tokens_are_unchanged(tmp_path: Path, quantize: QuantizeSettings) -> None:
    source = write_llama(tmp_path / "s", tokenizer=True)
    kept_file = tmp_path / "keep.txt"
    kept_file.write_text("\n".join(str(token) for token in range(0, LLAMA["vocab_size"], 3)), "utf-8")
    convert(source, tmp_path / "full", ConvertSettings(quantize))
    convert(source, tmp_path / "slim", ConvertSettings(quantize, keep_tokens=kept_file))
    with pocketglm.load(tmp_path / "full") as full, pocketglm.load(tmp_path / "slim") as slim:
        text = "the cat sat on the mat"
        slim_ids = slim.tokenizer.encode(text)
        assert slim.tokenizer.decode(slim_ids) == text
        kept = kept_rows(tmp_path / "slim")
        assert slim.spec.vocab_size == len(kept) < full.spec.vocab_size
        assert set(range(0, LLAMA["vocab_size"], 3)) <= set(kept)
        full_ids = [kept[token] for token in slim_ids]
        assert full.tokenizer.decode(full_ids) == text
        found = slim.session().forward(slim_ids)
        expected = full.session().forward(full_ids)[:, kept]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def kept_rows(package: Path) -> list[int]:
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    return [start + i for start, count in manifest["source"]["kept_rows"] for i in range(count)]


def test_end_tokens_follow(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s", tokenizer=True)
    (tmp_path / "keep.txt").write_text("200\n201\n", "utf-8")
    convert(source, tmp_path / "slim", ConvertSettings(EXACT, keep_tokens=tmp_path / "keep.txt"))
    kept = kept_rows(tmp_path / "slim")
    with Package.open(tmp_path / "slim") as package:
        generation = package.json("generation.json")
    assert generation is not None
    assert [kept[token] for token in generation["eos_token_ids"]] == [LLAMA["eos_token_id"]]


def test_without_a_tokenizer_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("1\n", "utf-8")
    with pytest.raises(InputError, match="needs a tokenizer"):
        convert(
            write_llama(tmp_path / "s"), tmp_path / "p", ConvertSettings(keep_tokens=tmp_path / "keep.txt")
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [("300\n", "300"), ("-1\n", "-1"), ("", "no token"), ('["no such token"]', "no such token")],
)
def test_bad_lists_of_kept_tokens(tmp_path: Path, text: str, message: str) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text(text, "utf-8")
    source = write_llama(tmp_path / "s", tokenizer=True)
    with pytest.raises(InputError, match=message) as caught:
        convert(source, tmp_path / "p", ConvertSettings(keep_tokens=keep))
    assert "keep.txt" in str(caught.value)


def write_original_release(golden: Path, directory: Path) -> dict[str, Any]:
    """The slim fixture as its original release would be: 20000 image rows in front, ids shifted."""
    config = json.loads((golden / "config.json").read_text("utf-8"))
    slim_ids = {name: value for name, value in config.items() if name.endswith("_token_id")}
    config |= {name: value + IMAGE_ROWS for name, value in slim_ids.items()}
    config |= {"vocab_size": config["vocab_size"] + IMAGE_ROWS, "num_image_tokens": IMAGE_ROWS}
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    tensors: dict[str, Any] = {}
    for shard in sorted(golden.glob("*.bin")):
        tensors |= torch.load(shard, weights_only=True)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGE_ROWS, config["hidden_size"], generator=rng).half()
    for name in ("transformer.word_embeddings.weight", "lm_head.weight"):
        tensors[name] = torch.cat([images, tensors[name]])
    torch.save(tensors, directory / "pytorch_model.bin")
    return slim_ids


def test_image_tokens_of_the_original_release_are_dropped(golden: Path, tmp_path: Path) -> None:
    slim_ids = write_original_release(golden / "chatglm-v1-tiny", tmp_path / "original")
    convert(golden / "chatglm-v1-tiny", tmp_path / "slim", ConvertSettings(INT4))
    convert(tmp_path / "original", tmp_path / "dropped", ConvertSettings(INT4))
    for name in ("embedding.bf16", "head.mnn.weight", "block_00.mnn.weight", "generation.json"):
        assert (tmp_path / "dropped" / name).read_bytes() == (tmp_path / "slim" / name).read_bytes()
    with Package.open(tmp_path / "dropped") as package, Package.open(tmp_path / "slim") as slim:
        assert package.spec == slim.spec
        assert package.spec.prefix_tokens is not None
        assert package.spec.prefix_tokens.sop == slim_ids["bos_token_id"]


def test_original_release_gives_the_golden_logits(golden: Path, tmp_path: Path) -> None:
    write_original_release(golden / "chatglm-v1-tiny", tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "p", ConvertSettings(EXACT))
    recorded = np.load(golden / "chatglm-v1-tiny" / "golden.npz")
    with pocketglm.load(tmp_path / "p") as model:
        logits = model.session().forward(recorded["prompt_ids"].tolist())
    np.testing.assert_allclose(logits, recorded["prompt_logits"], atol=1e-4)


def test_kept_rows_reach_embedding_and_head(tmp_path: Path) -> None:
    tensors = llama_tensors()
    source = write_llama(tmp_path / "s", tensors, tokenizer=True)
    (tmp_path / "keep.txt").write_text("[299, 7]", "utf-8")
    convert(source, tmp_path / "p", ConvertSettings(EXACT, keep_tokens=tmp_path / "keep.txt"))
    kept = kept_rows(tmp_path / "p")
    assert kept == sorted(kept)
    with Package.open(tmp_path / "p") as package:
        np.testing.assert_array_equal(
            package.embedding_rows(range(len(kept))), tensors["model.embed_tokens.weight"][kept]
        )
        np.testing.assert_array_equal(
            package.head().linear("head").dequantize(), tensors["lm_head.weight"][kept]
        )
