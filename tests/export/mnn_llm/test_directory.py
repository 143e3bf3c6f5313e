"""`export --format mnn-llm`: what MNN's own engine makes of every kind of model, and what stops an export.

Logits and greedy tokens are compared with the reference engine on the same package. Two tokens may change
places where their logits are closer than the float32 error of both engines, `TIE`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoints import greedy
from engine.contract_specs import FORMATS, SPECS, prompt
from engine.mnn.graphs import add_graphs, need_mnn
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from generate.tiny_models import PREFIXED, TEMPLATE, write_tiny
from pocketglm.architecture.spec import ModelSpec
from pocketglm.convert import ConvertSettings, convert
from pocketglm.engine.contract import EngineOptions
from pocketglm.engine.registry import get_engine
from pocketglm.errors import EngineError, InputError, IntegrityError, ResourceError
from pocketglm.export.mnn_llm import MnnLlm, check, directory, export_mnn_llm
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings

NEW_TOKENS = 64
TIE = 1e-4


@pytest.fixture(autouse=True)
def _needs_mnn() -> None:
    need_mnn()


def package_of(path: Path, spec: ModelSpec, weight_format: str = "float32") -> Path:
    return write_package(path, spec, random_tensors(spec), FORMATS[weight_format])


def converted(source: Path, path: Path, bits: int) -> Path:
    weight_format = WeightFormat(bits)  # type: ignore[arg-type]
    return convert(
        source, path, ConvertSettings(QuantizeSettings(weight_format, weight_format), report=False)
    )


def mnn_prompt(spec: ModelSpec) -> list[int]:
    """A prompt as MNN takes it: for a bidirectional prefix, <sop> is its last token."""
    return prompt(spec, 8 if spec.prefix_tokens else 12)


def assert_same_tokens(
    package: Path, exported: Path, ids: list[int], engine: str = "reference", tie: float = TIE
) -> None:
    """MNN's own generation loop gives the tokens of one of our engines, up to ties."""
    count = NEW_TOKENS
    with MnnLlm(exported, threads=1) as model:
        found = model.generate(ids, count)
    with Package.open(package) as opened:
        runner = Runner(get_engine(engine), opened, options=EngineOptions(threads=1))
        expected = greedy(runner, ids, count)
        if found != expected:
            first = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
            logits = runner.run([*ids, *expected[:first]], sequence=1)[-1]
            assert abs(logits[found[first]] - logits[expected[first]]) < tie
        runner.release()


# What it computes


@pytest.mark.parametrize("name", SPECS)
def test_every_kind_of_decoder(tmp_path: Path, name: str) -> None:
    package = package_of(tmp_path / "package", SPECS[name])
    result = export_mnn_llm(package, tmp_path / "exported")
    assert result.check.largest_error < 1e-5
    assert result.check.top1_agreement == 1.0
    assert_same_tokens(package, result.path, mnn_prompt(SPECS[name]))


@pytest.mark.parametrize(("weight_format", "tie"), [("float32", TIE), ("int4-g32", 0.1)])
@pytest.mark.parametrize("name", ["plain", "prefix_2d_alpha_layernorm_gelu", "sliding_window"])
def test_same_tokens_as_the_mnn_engine(tmp_path: Path, name: str, weight_format: str, tie: float) -> None:
    """Both use MNN's kernels. With int8 activations the two graphs round differently: 3 % of a logit."""
    package = package_of(tmp_path / "package", SPECS[name], weight_format)
    result = export_mnn_llm(package, tmp_path / "exported")
    add_graphs(package)
    assert_same_tokens(package, result.path, mnn_prompt(SPECS[name]), "mnn", tie)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "float32"])
def test_every_weight_format(tmp_path: Path, name: str) -> None:
    """Padded inputs and every header; expanded to float32 the weights are exactly the package's."""
    package = package_of(tmp_path / "package", SPECS["llama3_scaling_odd_sizes"], name)
    report = export_mnn_llm(package, tmp_path / "exported").check
    if FORMATS[name].quantized:
        assert report.expanded_error is not None
        assert report.expanded_error < 1e-5
        assert 1e-3 < report.relative_error < 0.05  # int8 activations
    else:
        assert report.expanded_error is None
        assert report.largest_error < 1e-5


@pytest.mark.parametrize("bits", [32, 4])
@pytest.mark.parametrize("name", ["chatglm-v1-tiny", "chatglm2-tiny"])
def test_golden_checkpoints(golden: Path, tmp_path: Path, name: str, bits: int) -> None:
    package = converted(golden / name, tmp_path / "package", bits)
    result = export_mnn_llm(package, tmp_path / "exported")
    if bits < 16:
        assert result.check.expanded_error is not None
        assert result.check.expanded_error < 1e-5
        assert result.check.relative_error < 0.05
        return
    expected = np.load(golden / name / "golden.npz")
    ids, answer = expected["prompt_ids"].tolist(), expected["greedy_ids"].tolist()
    with MnnLlm(result.path, all_logits=True) as model:
        np.testing.assert_allclose(model.forward(ids), expected["prompt_logits"], atol=1e-3)
        for token, logits in zip(answer, expected["step_logits"], strict=False):
            np.testing.assert_allclose(model.forward([token])[-1], logits, atol=1e-3)
    with MnnLlm(result.path) as model:
        assert model.generate(ids, len(answer)) == answer


@pytest.mark.parametrize("bits", [32, 4])
def test_stories260k(shared_data: Path, tmp_path: Path, bits: int) -> None:
    package = converted(shared_data / "stories260k", tmp_path / "package", bits)
    result = export_mnn_llm(package, tmp_path / "exported")
    assert result.notes == ()
    if bits == 32:
        ids = json.loads((shared_data / "stories260k" / "greedy_ids.json").read_text())
        assert_same_tokens(package, result.path, ids[:1])
        with MnnLlm(result.path) as model:
            assert model.generate(ids[:1], NEW_TOKENS) == ids[1 : NEW_TOKENS + 1]
        add_graphs(package)
        assert_same_tokens(package, result.path, ids[:1], "mnn")
    else:
        assert result.check.relative_error < 0.05


def test_smollm2(smollm2: Path, tmp_path: Path) -> None:
    """A real model with very large activations: what the finer scales of `dynamic_option` are for."""
    package = converted(smollm2, tmp_path / "package", 4)
    result = export_mnn_llm(package, tmp_path / "exported")
    assert result.notes == (check.GROUP_NOTE,)
    assert json.loads((result.path / "config.json").read_text("utf-8"))["dynamic_option"] == 2
    assert result.check.expanded_error is not None
    assert result.check.expanded_error < 1e-3
    assert result.check.relative_error < 0.05


def test_smollm2_gives_the_same_tokens(smollm2: Path, tmp_path: Path) -> None:
    package = converted(smollm2, tmp_path / "package", 16)
    result = export_mnn_llm(package, tmp_path / "exported")
    with Package.open(package) as opened:
        ids = check.tokenizer_of(opened).encode("The lighthouse stands on")  # type: ignore[union-attr]
    assert_same_tokens(package, result.path, ids)


# What is written


def test_the_directory(tmp_path: Path) -> None:
    package = write_tiny(tmp_path / "package", weight_format=WeightFormat(4))
    seen: list[tuple[str, int, int]] = []
    result = export_mnn_llm(package, tmp_path / "exported", lambda *step: seen.append(step))
    assert {file.name for file in result.path.iterdir()} == {
        "config.json",
        "embeddings_bf16.bin",
        "llm.mnn",
        "llm.mnn.weight",
        "llm_config.json",
        "pocketglm.json",
        "tokenizer.json",
        "tokenizer.mtok",
    }
    stamp = json.loads((result.path / "pocketglm.json").read_text("utf-8"))
    with Package.open(package) as opened:
        assert stamp["package"] == opened.fingerprint
    assert stamp["mnn"].startswith("3.6")
    assert stamp["check"]["tokens"] == 16
    first = (package / "block_00.mnn.weight").read_bytes()
    assert (result.path / "llm.mnn.weight").read_bytes().startswith(first)
    config = json.loads((result.path / "llm_config.json").read_text("utf-8"))
    assert config["jinja"] == {"chat_template": TEMPLATE, "eos": "<|end|>"}
    assert seen[0][:2] == ("graph", 0)
    assert seen[-1][1] == seen[-1][2]
    assert not list(tmp_path.glob("*.partial"))


def test_same_package_gives_the_same_bytes(tmp_path: Path) -> None:
    package = write_tiny(tmp_path / "package", weight_format=WeightFormat(4))
    first, second = (export_mnn_llm(package, tmp_path / name).path for name in "ab")
    for file in first.iterdir():
        if file.name != "pocketglm.json":  # it holds the time that loading took
            assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.mark.parametrize("prefixed", [False, True])
def test_conversation_from_template_to_tokens(tmp_path: Path, prefixed: bool) -> None:
    spec = {"spec": PREFIXED} if prefixed else {}
    package = write_tiny(tmp_path / "package", **spec)  # type: ignore[arg-type]
    result = export_mnn_llm(package, tmp_path / "exported")
    messages = [{"role": "user", "content": "你好, hello"}]
    expected = "<|user|>你好, hello<|end|><|assistant|>"
    with MnnLlm(result.path) as model, Package.open(package) as opened:
        assert model.apply_chat_template(messages) == expected
        tokenizer = check.tokenizer_of(opened)
        assert tokenizer is not None
        assert model.encode([expected]) == [tokenizer.encode(expected, allow_special=True)]
    assert any("conversation" in note for note in result.notes) == prefixed


def test_sampling_settings(tmp_path: Path) -> None:
    generation = {"do_sample": True, "temperature": 0.8, "top_p": 0.7, "top_k": 50, "eos_token_ids": [257]}
    package = write_tiny(tmp_path / "package", generation=generation)
    result = export_mnn_llm(package, tmp_path / "exported")
    config = json.loads((result.path / "config.json").read_text("utf-8"))
    assert config["mixed_samplers"] == ["topK", "topP", "temperature"]
    assert (config["temperature"], config["top_p"], config["top_k"]) == (0.8, 0.7, 50)


def test_package_without_tokenizer(tmp_path: Path) -> None:
    package = package_of(tmp_path / "package", SPECS["plain"])
    result = export_mnn_llm(package, tmp_path / "exported")
    assert result.notes == ("the package has no tokenizer: the directory runs on token ids only",)


def test_little_memory_maps_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "LOADED_SHARE", 1e12)
    package = package_of(tmp_path / "package", SPECS["plain"], "int4-g32")
    result = export_mnn_llm(package, tmp_path / "exported")
    assert not (result.path / "check").exists()


# What stops it


def test_existing_output(tmp_path: Path) -> None:
    package = package_of(tmp_path / "package", SPECS["plain"])
    for name, message in (("there", "exists already"), ("new.partial", "in the way")):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=message):
            export_mnn_llm(package, tmp_path / name.removesuffix(".partial"))


def test_failing_check_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are not the package's: what a wrong graph or another MNN would do."""
    original = directory.write_weights

    def damage(package: Package, plan: object, path: Path, on_bytes: object) -> None:
        original(package, plan, path, on_bytes)  # type: ignore[arg-type]
        with open(path / "llm.mnn.weight", "r+b") as file:
            file.seek(3000)
            file.write(b"\x11" * 2000)

    monkeypatch.setattr(directory, "write_weights", damage)
    package = package_of(tmp_path / "package", SPECS["plain"], "int4-g32")
    with pytest.raises(EngineError, match=r"off by .* expected at most"):
        export_mnn_llm(package, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_damaged_package(tmp_path: Path) -> None:
    package = package_of(tmp_path / "package", SPECS["plain"])
    with open(package / "block_01.mnn.weight", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    with pytest.raises(IntegrityError, match=r"block_01\.mnn\.weight: its SHA-256"):
        export_mnn_llm(package, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = package_of(tmp_path / "package", SPECS["plain"])
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"the export needs .* MiB, 1 MiB are free"):
        export_mnn_llm(package, tmp_path / "exported")


def test_missing_parent(tmp_path: Path) -> None:
    package = package_of(tmp_path / "package", SPECS["plain"])
    with pytest.raises(ResourceError, match="No such file"):
        export_mnn_llm(package, tmp_path / "missing" / "exported")


def test_two_axes_without_a_prefix_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    spec = replace(SPECS["plain"], rotary=replace(SPECS["plain"].rotary, axes=2))
    package = package_of(tmp_path / "package", spec)
    with pytest.raises(EngineError, match="one row of positions"):
        export_mnn_llm(package, tmp_path / "exported")


# Manners

EXPORT = """
import sys
from pocketglm.export.mnn_llm import export_mnn_llm
export_mnn_llm(sys.argv[1], sys.argv[2])
"""
WATCH = """
import sys, subprocess
def watch(event, arguments):
    if event.startswith(("socket.", "os.system", "os.exec", "os.fork", "os.posix_spawn")):
        raise SystemExit(f"forbidden: {event} {arguments}")
    if event == "subprocess.Popen" and arguments[0] != sys.executable or "pip" in str(arguments[1:2]).split():
        raise SystemExit(f"forbidden: {event} {arguments}")
sys.addaudithook(watch)
"""


@pytest.mark.parametrize("isolated", [False, True])
def test_no_network_and_nothing_printed(tmp_path: Path, isolated: bool) -> None:
    """Only our own child process is started; MNN and its converter work without a network."""
    prefix: list[str] = []
    if isolated:
        prefix = ["unshare", "-rn"]
        if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
            pytest.skip("this system does not let a test make a network namespace")
    package = package_of(tmp_path / "package", SPECS["plain"], "int4-g32")
    command = [*prefix, sys.executable, "-c", WATCH + EXPORT, str(package), str(tmp_path / "exported")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
