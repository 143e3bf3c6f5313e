"""Conversion as a whole: settings reach the bytes, and nothing is lost whatever goes wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.checkpoints import llama_tensors, write_llama
from pocketglm.convert import ConversionProgress, ConvertSettings, convert
from pocketglm.errors import CheckpointError, InputError, ResourceError
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.reader import Package
from pocketglm.package.verify import verify_package
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings


def formats(bits: int, group: int = 32, head: int | None = None, symmetric: bool = False) -> ConvertSettings:
    block = WeightFormat(bits, group, symmetric)  # type: ignore[arg-type]
    head_format = WeightFormat(head or bits, group, symmetric)  # type: ignore[arg-type]
    return ConvertSettings(QuantizeSettings(block, head_format))


def contents(package: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in package.iterdir()}


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_stored_weights_are_close_to_the_checkpoint(tmp_path: Path, bits: int, symmetric: bool) -> None:
    tensors = llama_tensors()
    source = write_llama(tmp_path / "source", tensors)
    convert(source, tmp_path / "p", formats(bits, symmetric=symmetric))
    verify_package(tmp_path / "p")
    ceiling = {32: 0.0, 16: 5e-4, 8: 0.008, 4: 0.11}[bits]
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    qkv = np.concatenate([tensors[f"model.layers.1.{name}.weight"] for name in names])
    with Package.open(tmp_path / "p") as package:
        stored = package.block(1).linear("attention.qkv").dequantize()
        assert np.linalg.norm(stored - qkv) <= ceiling * np.linalg.norm(qkv)
        head = package.head().linear("head").dequantize()
        assert np.linalg.norm(head - tensors["lm_head.weight"]) <= ceiling * np.linalg.norm(head)
        norm = package.block(1).vector("mlp_norm.weight")
        np.testing.assert_array_equal(norm, tensors["model.layers.1.post_attention_layernorm.weight"])


def test_embedding_is_rounded_to_nearest_even_not_truncated(tmp_path: Path) -> None:
    tensors = llama_tensors()
    one = np.float32(1.0)
    values = one + np.array([0.5, 1.5, 0.51, 0.49, 1.0], np.float32) * np.float32(
        2**-7
    )  # in units of bfloat16's last place
    tensors["model.embed_tokens.weight"][7, :5] = values
    convert(write_llama(tmp_path / "s", tensors), tmp_path / "p", formats(4))
    with Package.open(tmp_path / "p") as package:
        row = package.embedding_rows([7])[0, :5]
    expected = one + np.array([0, 2, 1, 0, 1], np.float32) * np.float32(2**-7)
    np.testing.assert_array_equal(row, expected)


def test_float32_keeps_the_embedding_exactly(tmp_path: Path) -> None:
    tensors = llama_tensors()
    convert(write_llama(tmp_path / "s", tensors), tmp_path / "p", formats(32))
    with Package.open(tmp_path / "p") as package:
        np.testing.assert_array_equal(
            package.embedding_rows(range(300)), tensors["model.embed_tokens.weight"]
        )
        assert package.manifest.embedding_file == "embedding.f32"


def test_head_and_single_tensors_have_their_own_formats(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[tensor]]\nmatch = "block.1.mlp.*"\nbits = 16\n', "utf-8")
    settings = formats(4, head=8)
    settings = replace(settings, quantize=settings.quantize.with_rules(rules))
    convert(write_llama(tmp_path / "s"), tmp_path / "p", settings)
    with Package.open(tmp_path / "p") as package:
        assert package.head().entry("head").format.bits == 8
        assert package.block(1).entry("mlp.down").format.bits == 16
        assert package.block(1).entry("attention.qkv").format.bits == 4
        assert package.block(0).entry("mlp.down").format.bits == 4


def test_rule_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[tensor]]\nmatch = "block.9.mlp.*"\nbits = 8\n', "utf-8")
    settings = replace(formats(4), quantize=formats(4).quantize.with_rules(rules))
    with pytest.raises(InputError, match="matches no linear layer"):
        convert(write_llama(tmp_path / "s"), tmp_path / "p", settings)
    assert not (tmp_path / "p.partial").exists()


def test_report_is_what_the_reference_engine_finds(tmp_path: Path) -> None:
    """The manifest's KL divergence equals one computed from the two packages, run as packages."""
    from engine.runner import Runner
    from pocketglm.engine.reference.engine import ReferenceEngine

    source = write_llama(tmp_path / "s")
    convert(source, tmp_path / "p4", formats(4))
    convert(source, tmp_path / "p32", formats(32))
    logits = []
    for name in ("p32", "p4"):
        with Package.open(tmp_path / name) as package:
            ids = np.random.default_rng(0).integers(0, 300, 48).tolist()
            runner = Runner(ReferenceEngine(), package)
            rows = runner.run(ids).astype(np.float64)
            logits.append(rows - np.log(np.exp(rows).sum(-1, keepdims=True)))
            runner.release()
            report = package.manifest.fidelity
    assert report is not None
    kl = float(np.mean(np.sum(np.exp(logits[0]) * (logits[0] - logits[1]), -1)))
    assert report["model"]["kl_divergence"] == pytest.approx(kl, rel=1e-2)
    agreement = np.mean(logits[0].argmax(-1) == logits[1].argmax(-1))
    assert report["model"]["top1_agreement"] == pytest.approx(agreement, abs=1e-3)
    assert 0.001 < report["blocks"][0]["output"]["relative_error"] < 0.2
    assert (
        report["blocks"][2]["accumulated"]["relative_error"]
        > report["blocks"][0]["accumulated"]["relative_error"]
    )
    assert report["blocks"][0]["weights"]["attention.qkv"]["relative_error"] < 0.11


def test_float32_report_says_nothing_was_lost(tmp_path: Path) -> None:
    convert(write_llama(tmp_path / "s"), tmp_path / "p", formats(32))
    with Package.open(tmp_path / "p") as package:
        report = package.manifest.fidelity
    assert report is not None
    assert report["model"] is None
    assert all(w["relative_error"] == 0 for block in report["blocks"] for w in block["weights"].values())


def test_threads_do_not_change_the_bytes(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    for threads in (1, 2, 3):
        convert(source, tmp_path / f"p{threads}", replace(formats(4), threads=threads))
    assert contents(tmp_path / "p1") == contents(tmp_path / "p2") == contents(tmp_path / "p3")


def test_progress_counts_every_weight_once(tmp_path: Path) -> None:
    seen: list[ConversionProgress] = []
    convert(write_llama(tmp_path / "s"), tmp_path / "p", formats(4), seen.append)
    total = sum(tensor.size for tensor in llama_tensors().values())
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert seen[-1].done == seen[-1].total == total


def test_existing_output_is_kept(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    convert(source, tmp_path / "p", formats(8))
    before = contents(tmp_path / "p")
    with pytest.raises(InputError, match="already exists"):
        convert(source, tmp_path / "p", formats(4))
    assert contents(tmp_path / "p") == before
    convert(source, tmp_path / "p", replace(formats(4), overwrite=True))
    with Package.open(tmp_path / "p") as package:
        assert package.head().entry("head").format.bits == 4


def test_overwrite_never_removes_what_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("precious", "utf-8")
    with pytest.raises(InputError, match="is not a package"):
        convert(write_llama(tmp_path / "s"), tmp_path / "p", replace(formats(4), overwrite=True))
    assert (tmp_path / "p" / "thesis.txt").read_text("utf-8") == "precious"


def test_a_folder_in_the_way_of_the_unfinished_one_is_kept(tmp_path: Path) -> None:
    (tmp_path / "p.partial").mkdir()
    (tmp_path / "p.partial" / "thesis.txt").write_text("precious", "utf-8")
    with pytest.raises(InputError, match="in the way"):
        convert(write_llama(tmp_path / "s"), tmp_path / "p", replace(formats(4), overwrite=True))
    assert (tmp_path / "p.partial" / "thesis.txt").exists()


class Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


def stop_at(step: str) -> Any:
    def progress(event: ConversionProgress) -> None:
        if event.step == step:
            raise Killed

    return progress


def test_unfinished_conversion_asks_what_to_do(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    with pytest.raises(Killed):
        convert(source, tmp_path / "p", formats(4), stop_at("block_02.mnn.weight"))
    with pytest.raises(InputError, match="unfinished conversion is here") as caught:
        convert(source, tmp_path / "p", formats(4))
    assert caught.value.hint is not None
    assert "--resume" in caught.value.hint
    with pytest.raises(InputError, match="other settings"):
        convert(source, tmp_path / "p", replace(formats(8), resume=True))
    convert(source, tmp_path / "p", replace(formats(8), overwrite=True))
    assert not (tmp_path / "p.partial").exists()


def test_resume_does_not_redo_finished_blocks(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    convert(source, tmp_path / "whole", formats(4))
    with pytest.raises(Killed):
        convert(source, tmp_path / "p", formats(4), stop_at("block_02.mnn.weight"))
    first = tmp_path / "p.partial" / "block_00.mnn.weight"
    before = first.stat().st_mtime_ns, first.stat().st_ino
    convert(source, tmp_path / "p", replace(formats(4), resume=True), stop_at("no such step"))
    after = (tmp_path / "p" / first.name).stat()
    assert (after.st_mtime_ns, after.st_ino) == before
    assert contents(tmp_path / "p") == contents(tmp_path / "whole")


def test_resume_of_a_finished_conversion_is_content_with_it(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    resume = replace(formats(4), resume=True)
    convert(source, tmp_path / "p", resume)
    before = (tmp_path / "p" / "manifest.json").stat().st_mtime_ns
    convert(source, tmp_path / "p", resume)
    assert (tmp_path / "p" / "manifest.json").stat().st_mtime_ns == before
    assert not (tmp_path / "p.partial").exists()
    with pytest.raises(InputError, match="with other settings"):
        convert(source, tmp_path / "p", replace(formats(8), resume=True))
    with pytest.raises(InputError, match="another source"):
        convert(write_llama(tmp_path / "other"), tmp_path / "p", resume)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove hidden states", "remove a block"])
def test_resume_after_damage_still_ends_in_the_same_bytes(tmp_path: Path, damage: str) -> None:
    source = write_llama(tmp_path / "s")
    convert(source, tmp_path / "whole", formats(4))
    with pytest.raises(Killed):
        convert(source, tmp_path / "p", formats(4), stop_at("head.mnn.weight"))
    partial = tmp_path / "p.partial"
    block = partial / "block_01.mnn.weight"
    if damage == "truncate":
        os.truncate(block, 10)
    elif damage == "flip":
        block.write_bytes(bytes([block.read_bytes()[0] ^ 1]) + block.read_bytes()[1:])
    elif damage == "remove a block":
        block.unlink()
    else:
        for path in partial.glob("hidden-*"):
            path.unlink()
    convert(source, tmp_path / "p", replace(formats(4), resume=True))
    assert contents(tmp_path / "p") == contents(tmp_path / "whole")


def test_unreadable_journal(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    with pytest.raises(Killed):
        convert(source, tmp_path / "p", formats(4), stop_at("block_01.mnn.weight"))
    (tmp_path / "p.partial" / "journal.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="journal cannot be read"):
        convert(source, tmp_path / "p", replace(formats(4), resume=True))


def test_two_conversions_do_not_write_to_one_place(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "p.partial").mkdir()
    with open(tmp_path / "p.partial" / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another conversion is writing here"):
            convert(write_llama(tmp_path / "s"), tmp_path / "p", formats(4))


def test_changed_source_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    with pytest.raises(Killed):
        convert(source, tmp_path / "p", formats(4), stop_at("block_02.mnn.weight"))
    write_llama(source, llama_tensors(seed=1))
    with pytest.raises(InputError, match="another source"):
        convert(source, tmp_path / "p", replace(formats(4), resume=True))


def test_too_little_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(ResourceError, match="1 MiB are free"):
        convert(write_llama(tmp_path / "s"), tmp_path / "p", formats(4))
    assert not list((tmp_path / "p.partial").glob("*.weight*"))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The operating system refuses writes past `size`, as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_disk_that_fills_up_on_the_way_loses_nothing(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    convert(source, tmp_path / "whole", formats(16))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole").iterdir()}
    limit = sizes["block_00.mnn.weight"] - 1
    assert sizes["embedding.bf16"] < limit
    with file_size_limit(limit), pytest.raises(ResourceError, match="the disk is full") as caught:
        convert(source, tmp_path / "p", formats(16))
    assert caught.value.hint is not None
    assert "--resume" in caught.value.hint
    convert(source, tmp_path / "p", replace(formats(16), resume=True))
    assert contents(tmp_path / "p") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "value", "bits", "message"),
    [
        ("model.layers.1.mlp.down_proj.weight", np.nan, 4, "mlp.down.weight"),
        ("model.layers.1.mlp.down_proj.weight", np.inf, 16, "does not fit float16"),
        ("model.layers.1.mlp.down_proj.weight", 1e6, 16, "does not fit float16"),
        ("model.layers.1.input_layernorm.weight", np.nan, 4, "input_norm.weight holds values"),
        ("model.embed_tokens.weight", np.inf, 4, "embedding.weight holds values"),
    ],
)
def test_weights_that_cannot_be_stored(
    tmp_path: Path, name: str, value: float, bits: int, message: str
) -> None:
    tensors = llama_tensors()
    tensors[name].reshape(-1)[5] = value
    with pytest.raises(InputError, match=message):
        convert(write_llama(tmp_path / "s", tensors), tmp_path / "p", formats(bits))


def test_truncated_checkpoint_names_the_tensor(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s")
    file = source / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        convert(source, tmp_path / "p", formats(4))
    assert not (tmp_path / "p").exists()


def test_source_is_recorded_without_private_paths(tmp_path: Path) -> None:
    convert(write_llama(tmp_path / "s"), tmp_path / "p", formats(4))
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text("utf-8"))
    assert manifest["source"]["name"] == "s"
    assert manifest["source"]["format"] == "safetensors"
    assert manifest["source"]["files"][0]["name"] == "model.safetensors"
    assert str(tmp_path) not in json.dumps(manifest)


def test_every_byte_of_a_row_is_planned(tmp_path: Path) -> None:
    """The disk check counts exactly what is written."""
    convert(write_llama(tmp_path / "s"), tmp_path / "p", formats(4, group=128))
    with Package.open(tmp_path / "p") as package:
        for name, entries in package.manifest.weights.items():
            assert package.manifest.files[name].size == max(entry.end for entry in entries)
            for entry in entries:
                if isinstance(entry, LinearEntry):
                    assert entry.stored_inputs % 32 == 0
