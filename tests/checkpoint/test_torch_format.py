"""PyTorch files, against torch's own reading of the files that it writes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketglm.checkpoint import open_checkpoint
from pocketglm.checkpoint.stored import StoredCheckpoint
from pocketglm.errors import CheckpointError, UnsupportedModelError


def save(directory: Path, value: Any, name: str = "pytorch_model.bin", **options: Any) -> Path:
    torch.save(value, directory / name, **options)
    (directory / "config.json").write_text('{"model_type": "chatglm"}')
    return directory / name


def same_bits(found: np.ndarray, expected: torch.Tensor) -> bool:
    reference = expected.detach().float().contiguous().numpy()
    return found.shape == reference.shape and found.tobytes() == reference.tobytes()


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], **options: Any) -> None:
    """Write the archive anew with some entries changed, or dropped where the change is None."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            changed = change(name, content)
            if changed is not None:
                archive.writestr(name, changed)


@pytest.mark.parametrize("name", ["chatglm-v1-tiny", "chatglm2-tiny"])
def test_golden_checkpoints_read_as_torch_reads_them(golden: Path, name: str) -> None:
    expected: dict[str, torch.Tensor] = {}
    for shard in sorted((golden / name).glob("*.bin")):
        expected |= torch.load(shard, weights_only=True)
    with open_checkpoint(golden / name) as checkpoint:
        assert checkpoint.format == "torch"
        assert set(checkpoint.tensors) == set(expected)
        for tensor, value in expected.items():
            assert same_bits(checkpoint.read(tensor), value), tensor
            if len(value) > 4:
                assert same_bits(checkpoint.read(tensor, 2, 2), value[2:4]), tensor


TYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_reads_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = (torch.randn(13, 7) * 20).to(dtype)
    save(tmp_path, {"w": weight})
    with open_checkpoint(tmp_path) as checkpoint:
        assert same_bits(checkpoint.read("w"), weight)
        assert same_bits(checkpoint.read("w", 4, 3), weight[4:7])


def test_a_module_s_state_dict_with_metadata_and_parameters(tmp_path: Path) -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.LayerNorm(3))
    state = layer.state_dict(keep_vars=True)  # parameters, in an OrderedDict with a _metadata attribute
    save(tmp_path, state)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(state)
        assert all(same_bits(checkpoint.read(name), value) for name, value in state.items())


@pytest.mark.parametrize("protocol", range(1, 6))
def test_pickle_protocols(tmp_path: Path, protocol: int) -> None:
    weight = torch.randn(4, 4)
    save(tmp_path, {"w": weight}, pickle_protocol=protocol)
    with open_checkpoint(tmp_path) as checkpoint:
        assert same_bits(checkpoint.read("w"), weight)


def test_views_of_shared_storages(tmp_path: Path) -> None:
    base = torch.arange(60, dtype=torch.float32).reshape(6, 10)
    views = {
        "base": base,
        "same": base,
        "rows": base[2:5],
        "transposed": base.T,
        "columns": base[:, 3:7],
        "transposed columns": base[1:4, 3:7].T,
        "expanded": base[:1].expand(3, 10)[:, :2],
        "one column": base[:, 4:5],
        "scalar": base[3, 3],
        "vector": base[4],
        "empty": base[:0],
    }
    save(tmp_path, views)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(views)
        for name, view in views.items():
            assert same_bits(checkpoint.read(name), view), name
            if view.ndim and len(view) > 2:
                assert same_bits(checkpoint.read(name, 1, 2), view[1:3]), name


def test_values_that_are_not_tensors_are_left_out(tmp_path: Path) -> None:
    save(
        tmp_path,
        {"w": torch.ones(2), "epoch": 3, "name": "x", "rate": 0.5, "flag": True, "none": None, "list": [1]},
    )
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


@pytest.mark.parametrize("value", [torch.randn(4, 5, 6).permute(2, 0, 1), torch.arange(20.0)[::2]])
def test_other_strides_are_refused_with_a_hint(tmp_path: Path, value: torch.Tensor) -> None:
    save(tmp_path, {"w": value})
    with pytest.raises(UnsupportedModelError, match="tensor w is stored with strides") as caught:
        open_checkpoint(tmp_path)
    assert "contiguous" in str(caught.value.hint)


def test_an_expanded_tensor_cannot_claim_more_than_its_storage(tmp_path: Path) -> None:
    save(tmp_path, {"w": torch.zeros(1, 1).expand(1 << 20, 1 << 20)})
    with pytest.raises(CheckpointError, match="reaches element 0 of a storage of 1"):
        open_checkpoint(tmp_path)


def test_the_old_format_is_refused_with_a_hint(tmp_path: Path) -> None:
    save(tmp_path, {"w": torch.ones(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(UnsupportedModelError, match="old format") as caught:
        open_checkpoint(tmp_path)
    assert "torch.save(torch.load" in str(caught.value.hint)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="TorchScript"):
        open_checkpoint(tmp_path)


def test_nested_state_dicts_name_what_was_found(tmp_path: Path) -> None:
    save(tmp_path, {"model": {"w": torch.ones(2)}, "step": 1})
    with pytest.raises(CheckpointError, match="no tensors at its top level; found: model, step"):
        open_checkpoint(tmp_path)


def test_a_single_tensor_is_not_a_state_dict(tmp_path: Path) -> None:
    save(tmp_path, [torch.ones(2)])
    with pytest.raises(CheckpointError, match="holds a list, expected a state dict"):
        open_checkpoint(tmp_path)


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.ones(2)})
    rewrite(path, lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(UnsupportedModelError, match="big-endian"):
        open_checkpoint(tmp_path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(1000)})
    rewrite(path, lambda name, content: content, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="is compressed or encrypted"):
        open_checkpoint(tmp_path)


def test_a_storage_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(1000)})
    rewrite(path, lambda name, content: content[:-4] if "/data/" in name else content)
    with pytest.raises(CheckpointError, match="tensor w needs 4000 bytes, its archive entry data/0 has 3996"):
        open_checkpoint(tmp_path)


def test_a_missing_storage_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(10)})
    rewrite(path, lambda name, content: None if "/data/" in name else content)
    with pytest.raises(CheckpointError, match="archive entry data/0 is missing"):
        open_checkpoint(tmp_path)


def test_an_archive_without_a_pickle_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(10)})
    rewrite(path, lambda name, content: None if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match=r"has 0 data\.pkl entries, expected 1"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_an_error(tmp_path: Path, keep: float) -> None:
    path = save(tmp_path, {"w": torch.zeros(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match="the zip archive is cut short or damaged") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02}", b"not a model at all"])
def test_other_files_are_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not a torch file"):
        open_checkpoint(tmp_path)


def test_a_wrong_local_header_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(1000)})
    with zipfile.ZipFile(path) as archive:
        offset = next(info.header_offset for info in archive.infolist() if info.filename.endswith("/data/0"))
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = b"XX"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="archive entry data/0 has a damaged header"):
        open_checkpoint(tmp_path)


def test_sharded_checkpoints(tmp_path: Path) -> None:
    first, second = {"a": torch.randn(3, 2)}, {"b": torch.randn(2, 3), "unlisted": torch.ones(1)}
    save(tmp_path, first, "pytorch_model-00001-of-00002.bin")
    save(tmp_path, second, "pytorch_model-00002-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert isinstance(checkpoint, StoredCheckpoint)
        assert set(checkpoint.tensors) == {"a", "b"}
        assert checkpoint.tensors["b"].file.name == "pytorch_model-00002-of-00002.bin"
        assert same_bits(checkpoint.read("b"), second["b"])


def test_archives_of_any_name_and_from_any_stream(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"w": torch.ones(3)}, stream)
    (tmp_path / "weights.pt").write_bytes(stream.getvalue())
    (tmp_path / "config.json").write_text("{}")
    with open_checkpoint(tmp_path / "weights.pt") as checkpoint:
        assert checkpoint.read("w").tolist() == [1, 1, 1]
