"""MNN-LLM directories as a source: exact values, codes taken over bit for bit, damage refused by name."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.contract_specs import FORMATS, SPECS
from engine.mnn.graphs import need_mnn
from engine.tiny_packages import dequantized_tensors, random_tensors, write_package
from generate.tiny_models import PREFIXED, write_tiny
from pocketglm.checkpoint import open_checkpoint
from pocketglm.checkpoint.mnn_llm import QuantizedPlacement
from pocketglm.convert import ConvertSettings, convert
from pocketglm.errors import CheckpointError, PocketGLMError, UnsupportedModelError
from pocketglm.export.mnn_llm import export_mnn_llm
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings


@pytest.fixture(autouse=True)
def _needs_mnn() -> None:
    need_mnn()


def back(directory: Path, package: Path, weight_format: WeightFormat) -> Path:
    settings = QuantizeSettings(weight_format, weight_format)
    return convert(directory, package, ConvertSettings(settings, report=False))


def files(package: Path) -> dict[str, str]:
    with Package.open(package) as opened:
        return {name: entry.sha256 for name, entry in opened.manifest.files.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_back_and_forth_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    """Every format, padded inputs included."""
    spec = SPECS["llama3_scaling_odd_sizes"]
    package = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS[name])
    exported = export_mnn_llm(package, tmp_path / "exported").path
    again = back(exported, tmp_path / "again", FORMATS[name])
    first, second = files(package), files(again)
    weights = [file for file in first if file.endswith(".weight")]
    assert {file: first[file] for file in weights} == {file: second[file] for file in weights}
    if name == "float32":
        assert first["embedding.f32"] == second["embedding.f32"]


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_comes_back(tmp_path: Path, name: str) -> None:
    spec = SPECS[name]
    package = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS["float16"])
    exported = export_mnn_llm(package, tmp_path / "exported").path
    with Package.open(back(exported, tmp_path / "again", FORMATS["float16"])) as again:
        assert again.spec == spec


@pytest.mark.parametrize("prefixed", [False, True])
def test_side_files_come_back(tmp_path: Path, prefixed: bool) -> None:
    settings: dict[str, Any] = {"spec": PREFIXED} if prefixed else {}
    generation = {"do_sample": True, "temperature": 0.5, "top_p": 0.75, "eos_token_ids": [257, 263]}
    package = write_tiny(tmp_path / "package", generation=generation, **settings)
    exported = export_mnn_llm(package, tmp_path / "exported").path
    again = back(exported, tmp_path / "again", WeightFormat(32))
    with Package.open(package) as first, Package.open(again) as second:
        assert second.text("chat_template.jinja") == first.text("chat_template.jinja")
        found = second.json("generation.json")
        assert found is not None
        assert {name: found[name] for name in generation} == generation
        assert (
            json.loads(second.text("tokenizer.json") or "")["model"]
            == json.loads(first.text("tokenizer.json") or "")["model"]
        )


@pytest.mark.parametrize("name", ["int4-g32", "int8-row-symmetric", "float16"])
def test_values_are_exact(tmp_path: Path, name: str) -> None:
    spec = SPECS["llama3_scaling_odd_sizes"]
    package = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS[name])
    exported = export_mnn_llm(package, tmp_path / "exported").path
    with Package.open(package) as opened, open_checkpoint(exported) as checkpoint:
        assert checkpoint.format == "mnn-llm"
        expected = dequantized_tensors(opened)
        assert set(expected) == set(checkpoint.tensors)
        for tensor, values in expected.items():
            assert checkpoint.tensors[tensor].shape == values.shape
            np.testing.assert_allclose(checkpoint.read(tensor), values, rtol=2e-7, atol=1e-9)
            np.testing.assert_array_equal(checkpoint.read(tensor, 3, 2), checkpoint.read(tensor)[3:5])


def test_another_format_is_quantized_anew(tmp_path: Path) -> None:
    spec = SPECS["plain"]
    package = write_package(tmp_path / "package", spec, random_tensors(spec), FORMATS["int4-g32"])
    exported = export_mnn_llm(package, tmp_path / "exported").path
    with Package.open(back(exported, tmp_path / "again", WeightFormat(4, 64))) as again:
        assert again.block(0).linear("mlp.down").format.group == 64


# Another exporter's


DATA = Path(__file__).parent / "data"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A two-block Qwen2 with random weights, written by MNN 3.6.1's own exporter at int4."""
    return Path(shutil.copytree(DATA / "llmexport-qwen2-tiny", tmp_path / "foreign"))


def edit(path: Path, **changes: object) -> None:
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))


@pytest.mark.parametrize(("family", "head_bits"), [("qwen2", 4), ("qwen3", 8)])
def test_mnns_own_exporter(tmp_path: Path, family: str, head_bits: Any) -> None:
    """MNN runs its own directory, our engine the package made of it: the same logits."""
    from engine.runner import Runner
    from pocketglm.engine.registry import get_engine
    from pocketglm.export.mnn_llm import MnnLlm

    foreign = DATA / f"llmexport-{family}-tiny"
    settings = QuantizeSettings(WeightFormat(4, 32), WeightFormat(head_bits, 32))
    package = convert(foreign, tmp_path / "package", ConvertSettings(settings, report=False))
    ids = [5, 9, 100, 33, 7, 250]
    with MnnLlm(foreign, all_logits=True, settings={"memory": "normal"}) as model, Package.open(package) as p:
        assert (p.spec.family, p.spec.norm_eps, p.spec.rotary.base) == (family, 1e-6, 10000.0)
        expected = model.forward(ids)
        found = Runner(get_engine("reference"), p).run(ids)
        # 1e-6 but for the rotary frequencies, of which the exporter keeps six decimals
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        weights = (foreign / "llm.mnn.weight").read_bytes()
        for name in ("mlp.down", "attention.output"):
            assert p.block(1).linear(name).codes.tobytes() in weights
        assert p.head().linear("head").codes.tobytes() in weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma3"}, "the model type 'gemma3'"),
        ({"attention_type": "mix"}, "attention_type = 'mix'"),
        ({"attn_scale": 0.5}, "attn_scale = 0.5"),
        ({"hidden_size": 128}, "hidden_size is 128"),
        ({"tie_embeddings": {"quant_bit": 8, "weight_offset": 5}}, "quantized apart from the head"),
        ({"tie_embeddings": [1, 2, 3]}, "from an old release"),
    ],
)
def test_what_cannot_be_known_is_refused(foreign: Path, changes: dict[str, object], message: str) -> None:
    edit(foreign / "llm_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(foreign)


def test_tied_quantized_embedding(foreign: Path) -> None:
    """The embedding may be the head's own codes."""
    with open_checkpoint(foreign) as checkpoint:
        place = checkpoint.quantized["lm_head.weight"].place  # type: ignore[attr-defined]
        head = checkpoint.read("lm_head.weight")
    edit(
        foreign / "llm_config.json",
        tie_embeddings={"weight_offset": place.offset + 22, "quant_bit": 4, "quant_block": 32},
    )
    with open_checkpoint(foreign) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("model.embed_tokens.weight"), head)


# Damage


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_mnn()
    folder = tmp_path_factory.mktemp("own")
    spec = SPECS["plain"]
    package = write_package(folder / "package", spec, random_tensors(spec), FORMATS["int4-g32"])
    return export_mnn_llm(package, folder / "exported").path


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "own"))


def test_a_short_weight_file(own: Path) -> None:
    with open(own / "llm.mnn.weight", "r+b") as file:
        file.truncate(30000)
    with pytest.raises(CheckpointError, match=r"llm\.mnn\.weight: .*cut short"):
        open_checkpoint(own)


def test_an_unusual_code_table(own: Path) -> None:
    with open_checkpoint(own) as checkpoint:
        offset = checkpoint.quantized["head.weight"].place.offset  # type: ignore[attr-defined]
    with open(own / "llm.mnn.weight", "r+b") as file:
        file.seek(offset + 10)
        file.write(b"\x7f")
    with pytest.raises(UnsupportedModelError, match=r"head\.weight has codes of another kind"):
        open_checkpoint(own)


def test_scales_that_float16_does_not_hold(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older releases of MNN's exporter write them: read exactly, but never taken over rounded."""

    def wide(self: QuantizedPlacement, start: int, count: int) -> NDArray[np.float32]:
        return np.full((count, self.groups, self.alpha_values), 0.1, np.float32)

    monkeypatch.setattr(QuantizedPlacement, "alpha", wide)
    with pytest.raises(UnsupportedModelError, match=r"block\.0\.attention\.qkv\.weight has float32 scales"):
        back(own, tmp_path / "again", FORMATS["int4-g32"])
    assert back(own, tmp_path / "wide", WeightFormat(32)).is_dir()


def test_names_outside_the_directory(own: Path) -> None:
    edit(own / "config.json", llm_weight="../package/head.mnn.weight")
    with pytest.raises(CheckpointError, match=r"llm_weight is '\.\./package"):
        open_checkpoint(own)


def test_a_stamp_of_another_version(own: Path) -> None:
    edit(own / "pocketglm.json", version=99)
    with pytest.raises(CheckpointError, match=r"pocketglm\.json: has the format 'pocketglm-mnn-llm' 99"):
        open_checkpoint(own)


def test_settings_that_do_not_fit_the_weights(own: Path, tmp_path: Path) -> None:
    stamp = json.loads((own / "pocketglm.json").read_text("utf-8"))
    edit(own / "pocketglm.json", model={**stamp["model"], "intermediate_size": 64})
    with pytest.raises(CheckpointError, match="has shape"):
        back(own, tmp_path / "again", WeightFormat(4, 32))


def test_random_damage_to_the_graph_never_crashes(own: Path) -> None:
    """Whatever a damaged graph says, it is refused or read; nothing outside the file is touched."""
    original = (own / "llm.mnn").read_bytes()
    random = np.random.default_rng(5)
    for _ in range(400):
        data = bytearray(original)
        for position in random.integers(0, len(data), 3):
            data[position] = random.integers(0, 256)
        size = len(data) if random.random() < 0.8 else int(random.integers(0, len(data)))
        (own / "llm.mnn").write_bytes(bytes(data[:size]))
        try:
            open_checkpoint(own).close()
        except PocketGLMError:
            continue


@pytest.mark.parametrize("offset", [0, 4, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_root_that_points_nowhere(own: Path, offset: int) -> None:
    (own / "llm.mnn").write_bytes(struct.pack("<I", offset) + b"\xff" * 60)
    with pytest.raises(CheckpointError, match="is not an MNN graph"):
        open_checkpoint(own)
