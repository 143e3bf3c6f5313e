"""`convert`, `inspect`, `verify`, `eval` and `bench` on tiny real checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import pocketglm
from cli.conftest import Command

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 264,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": 256,
    "eos_token_id": 257,
}


def write_checkpoint(directory: Path, seed: int = 0) -> Path:
    """A Llama checkpoint with seeded random weights and a byte-level tokenizer."""
    from safetensors.numpy import save_file

    from generate.tiny_models import tokenizer_json

    hidden, inter, kv = 64, 96, 32
    shapes = {"model.embed_tokens.weight": (264, hidden), "model.norm.weight": (hidden,)}
    for block in range(2):
        prefix = f"model.layers.{block}."
        shapes |= {
            f"{prefix}{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")
        }
        for name, shape in (
            ("self_attn.q_proj", (hidden, hidden)),
            ("self_attn.k_proj", (kv, hidden)),
            ("self_attn.v_proj", (kv, hidden)),
            ("self_attn.o_proj", (hidden, hidden)),
            ("mlp.gate_proj", (inter, hidden)),
            ("mlp.up_proj", (inter, hidden)),
            ("mlp.down_proj", (hidden, inter)),
        ):
            shapes[f"{prefix}{name}.weight"] = shape
    random = np.random.default_rng(seed)
    tensors = {
        name: (np.ones(shape) if len(shape) == 1 else random.normal(0, 0.15, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "tokenizer.json").write_text(tokenizer_json())
    return directory


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny-llama")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. 你好，世界。\n" * 4, "utf-8")
    return path


@pytest.fixture
def converted(command: Command, checkpoint: Path, tmp_path: Path) -> Path:
    assert command("convert", checkpoint, "-o", tmp_path / "int4", "--group", 32).exit_code == 0
    return tmp_path / "int4"


class TestConvert:
    def test_tells_what_it_did_on_standard_error(
        self, command: Command, checkpoint: Path, tmp_path: Path
    ) -> None:
        result = command("convert", checkpoint, "-o", tmp_path / "p")
        assert result.exit_code == 0
        assert result.stdout == ""
        assert "MB/s" in result.stderr
        assert "KL divergence" in result.stderr

    def test_json(self, command: Command, checkpoint: Path, tmp_path: Path) -> None:
        data = json.loads(command("convert", checkpoint, "-o", tmp_path / "p", "--json").stdout)
        assert data["path"] == str(tmp_path / "p")
        assert data["source_bytes"] == (checkpoint / "model.safetensors").stat().st_size
        assert data["package_bytes"] > 0
        assert data["fidelity"]["kl_divergence"] >= 0

    def test_every_option_reaches_the_package(
        self, command: Command, checkpoint: Path, tmp_path: Path
    ) -> None:
        rules = tmp_path / "rules.toml"
        rules.write_text('[[tensor]]\nmatch = "block.1.mlp.down"\nbits = 16\n')
        options = ["--bits", 8, "--group", 32, "--symmetric", "--head-bits", 4, "--quant-config", rules]
        options += ["--no-search", "--no-report", "--threads", 1]
        assert command("convert", checkpoint, "-o", tmp_path / "p", *options).exit_code == 0
        data = json.loads(command("inspect", tmp_path / "p", "--json").stdout)
        assert {(w["bits"], w["group"], w["symmetric"]) for w in data["weights"]} == {
            (8, 32, True),
            (4, 32, True),
            (16, None, None),
        }
        assert data["quantization"]["block"]["search"] is False
        assert data["fidelity"]["model"] is None

    def test_kept_tokens(self, command: Command, checkpoint: Path, tmp_path: Path, text_file: Path) -> None:
        kept = tmp_path / "kept.txt"
        kept.write_text("".join(f"{i}\n" for i in range(100)))
        result = command("convert", checkpoint, "-o", tmp_path / "p", "--keep-tokens", kept, "--bits", 32)
        assert result.exit_code == 0, result.stderr
        assert "kept tokens" in command("inspect", tmp_path / "p").stdout
        # the comparison takes the same tokens from the checkpoint
        data = json.loads(
            command(
                *("eval", tmp_path / "p", "--engine", "reference", "--json"),
                *("--text", text_file, "--against", checkpoint),
            ).stdout
        )
        assert data["kl"] == pytest.approx(0, abs=1e-9)

    def test_an_existing_package_is_safe(self, command: Command, checkpoint: Path, converted: Path) -> None:
        refused = command("convert", checkpoint, "-o", converted)
        assert refused.exit_code == 2
        assert "already exists" in refused.stderr
        assert command("convert", checkpoint, "-o", converted, "--overwrite").exit_code == 0

    @pytest.mark.parametrize(
        ("options", "code", "text"),
        [
            (["--bits", "5"], 2, "bits is 5"),
            (["--group", "48"], 2, "group is 48"),
            (["--head-bits", "3"], 2, "bits is 3"),
            (["--quant-config", "absent.toml"], 2, "absent.toml"),
            (["--keep-tokens", "absent.txt"], 2, "absent.txt"),
        ],
        ids=lambda value: str(value),
    )
    def test_wrong_settings(
        self, command: Command, checkpoint: Path, tmp_path: Path, options: list[str], code: int, text: str
    ) -> None:
        result = command("convert", checkpoint, "-o", tmp_path / "p", *options)
        assert result.exit_code == code
        assert text in result.stderr

    def test_a_source_that_is_no_checkpoint(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        result = command("convert", tmp_path / "empty", "-o", tmp_path / "p")
        assert result.exit_code == 3
        assert not (tmp_path / "p").exists()


class TestInspect:
    def test_shows_model_and_fidelity(self, command: Command, converted: Path) -> None:
        text = command("inspect", converted).stdout
        for part in (
            "llama",
            "int4, groups of 32",
            "264 tokens",
            "256 tokens",
            "tiny-llama",
            "block 1",
            "top-1",
        ):
            assert part in text

    def test_json_counts_every_weight_once(self, command: Command, converted: Path) -> None:
        data = json.loads(command("inspect", converted, "--json").stdout)
        block = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96 + 2 * 64
        assert data["parameters"] == 264 * 64 + 2 * block + 64
        assert data["package_bytes"] == sum(data["files"].values())
        assert data["generation"]["eos_token_ids"] == [257]


class TestVerify:
    def test_a_sound_package(self, command: Command, converted: Path) -> None:
        assert "is sound" in command("verify", converted).stdout
        data = json.loads(command("verify", converted, "--json").stdout)
        assert data["ok"] is True
        assert data["tensors"] > 10

    def test_a_damaged_package(self, command: Command, converted: Path) -> None:
        file = converted / "block_01.mnn.weight"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        result = command("verify", converted)
        assert result.exit_code == 4
        assert "block_01.mnn.weight" in result.stderr
        told = command("verify", converted, "--json")
        assert told.exit_code == 4
        data = json.loads(told.stdout)
        assert data["ok"] is False
        assert "block_01.mnn.weight" in data["error"]


class TestEval:
    def test_perplexity(self, command: Command, converted: Path, text_file: Path) -> None:
        from pocketglm.generate.perplexity import evaluate

        data = json.loads(
            command(
                *("eval", converted, "--engine", "reference", "--json"),
                *("--text", text_file, "--window", 60, "--stride", 20),
            ).stdout
        )
        with pocketglm.load(converted, "reference") as model:
            tokens = model.tokenizer.encode(text_file.read_text("utf-8"))
            assert data["perplexity"] == pytest.approx(
                evaluate(model, tokens, window=60, stride=20).perplexity
            )
        assert data["tokens"] == len(tokens)
        assert data["kl"] is None

    def test_against_the_checkpoint(
        self, command: Command, converted: Path, checkpoint: Path, text_file: Path, tmp_path: Path
    ) -> None:
        result = command("eval", converted, "--text", text_file, "--against", checkpoint, "--json")
        data = json.loads(result.stdout)
        assert 0 < data["kl"] < 1
        assert 0 < data["top1"] <= 1
        assert math.isfinite(data["reference_perplexity"])
        assert list((tmp_path / "cache").iterdir()) == []  # nothing is left behind
        text = command("eval", converted, "--text", text_file, "--against", checkpoint).stdout
        assert "KL divergence" in text

    def test_against_another_package(
        self, command: Command, converted: Path, checkpoint: Path, text_file: Path, tmp_path: Path
    ) -> None:
        command("convert", checkpoint, "-o", tmp_path / "exact", "--bits", 32)
        one, other = (
            json.loads(command("eval", converted, "--text", text_file, "--against", source, "--json").stdout)
            for source in (checkpoint, tmp_path / "exact")
        )
        assert one == other

    def test_another_model_is_refused(
        self, command: Command, converted: Path, text_file: Path, golden: Path
    ) -> None:
        result = command("eval", converted, "--text", text_file, "--against", golden / "chatglm2-tiny")
        assert result.exit_code == 2
        assert "another model" in result.stderr

    def test_texts_that_cannot_be_used(self, command: Command, converted: Path, tmp_path: Path) -> None:
        (tmp_path / "noise").write_bytes(b"\xff\x00")
        (tmp_path / "empty").write_text("")
        for name in ("absent", "noise", "empty"):
            assert command("eval", converted, "--text", tmp_path / name).exit_code == 2


class TestBench:
    def test_json(self, command: Command, converted: Path) -> None:
        options = ["--prompt-tokens", 16, "--new-tokens", 4, "--sequences", 2, "--rounds", 1, "--json"]
        data = json.loads(command("bench", converted, *options).stdout)
        assert data["sequences"] == 2
        assert all(data[name] > 0 for name in ("prefill_tps", "decode_tps", "load_s", "peak_rss_bytes"))

    def test_for_people(self, command: Command, converted: Path) -> None:
        text = command("bench", converted, "--prompt-tokens", 8, "--new-tokens", 2, "--rounds", 1).stdout
        assert "prefill" in text
        assert "tokens/s (8 tokens)" in text

    def test_too_long(self, command: Command, converted: Path) -> None:
        assert command("bench", converted, "--prompt-tokens", 300).exit_code == 2


def test_a_package_can_be_moved(command: Command, converted: Path, tmp_path: Path) -> None:
    shutil.move(converted, tmp_path / "elsewhere")
    assert command("run", tmp_path / "elsewhere", "x", "--raw", "--max-tokens", 2).exit_code == 0
