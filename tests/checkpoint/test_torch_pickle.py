"""A pickle may describe tensors; whatever else it asks for is refused and never run."""

from __future__ import annotations

import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from pocketglm.checkpoint import open_checkpoint, torch_pickle
from pocketglm.checkpoint.torch_pickle import PickledTensor, Storage, read_state_dict
from pocketglm.errors import CheckpointError, UnsafePickleError

WHERE = "model.bin"


def text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    """LONG1."""
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(*values: int) -> bytes:
    """A tuple of numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str = "torch\nFloatStorage", key: str = "0", count: int = 4) -> bytes:
    """A persistent reference to a storage."""
    return (
        b"("
        + text("storage")
        + b"c"
        + kind.encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + number(count)
        + b"tQ"
    )


def tensor(
    body: bytes | None = None, offset: int = 0, shape: bytes = numbers(4), stride: bytes = numbers(1)
) -> bytes:
    """A call that rebuilds a tensor."""
    arguments = (storage() if body is None else body) + number(offset) + shape + stride
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89NtR"


def state_dict(value: bytes, name: bytes = text("w")) -> bytes:
    """A state dict of one entry."""
    return b"\x80\x02}" + name + value + b"s."


def read(pickled: bytes) -> dict[str, PickledTensor]:
    return read_state_dict(pickled, WHERE)


def archive(path: Path, pickled: bytes, data: bytes = bytes(16)) -> Path:
    """A checkpoint directory whose torch file holds this pickle."""
    with zipfile.ZipFile(path / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", data)
    (path / "config.json").write_text("{}")
    return path


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def test_a_tensor_written_by_hand(tmp_path: Path) -> None:
    assert read(state_dict(tensor())) == {"w": PickledTensor(Storage("0", "F32", 4), 0, (4,), (1,))}
    with open_checkpoint(
        archive(tmp_path, state_dict(tensor()), struct.pack("<4f", 1, 2, 3, 4))
    ) as checkpoint:
        assert checkpoint.read("w", 1, 2).tolist() == [2, 3]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (Call(os.system, "touch {}"), "posix.system"),
        (Call(eval, "open('{}', 'w')"), "eval"),
        (Call(exec, "open('{}', 'w')"), "exec"),
        (Call(getattr, "x", "upper"), "getattr"),
        (Call(pickle.loads, b""), "loads"),
        (os.system, "posix.system"),
        (OrderedDict, "OrderedDict"),
    ],
)
def test_calls_are_refused_by_name(tmp_path: Path, protocol: int, value: Any, asked: str) -> None:
    witness = tmp_path / "witness"
    if isinstance(value, Call) and isinstance(value._call[1][0], str):
        value = Call(value._call[0], value._call[1][0].format(witness), *value._call[1][1:])
    archive(tmp_path, pickle.dumps({"w": value}, protocol))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert not witness.exists()
    if asked != "OrderedDict":  # that one is a known name; there is just no tensor
        assert isinstance(caught.value, UnsafePickleError)
        assert asked in str(caught.value)
        assert caught.value.where == str(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"cos\nsystem\n(" + text("id") + b"tR.", "asks for os.system"),
        (b"\x80\x04" + text("os") + text("system") + b"\x93(" + text("id") + b"tR.", "asks for os.system"),
        (b"\x80\x04" + text("builtins") + text("eval") + b"\x93.", "asks for builtins.eval"),
        (b"\x80\x04" + number(1) + text("eval") + b"\x93.", "looks up a name that is not text"),
        (
            b"ctorch\n_utils._rebuild_tensor_v2.__globals__\n.",
            "asks for torch._utils._rebuild_tensor_v2.__globals__",
        ),
        (b"cos\\o\nsystem\n.", r"asks for os\\o\.system"),
        (b"ctorch.storage\nUntypedStorage\n.", "asks for torch.storage.UntypedStorage"),
        (b"(" + text("id") + b"ios\nsystem\n.", "instruction INST for os.system"),
        (b"(cos\nsystem\n" + text("id") + b"o.", "asks for os.system"),
        (b"(ccollections\nOrderedDict\no.", "instruction OBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "instruction NEWOBJ_EX"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"P0\n.", "instruction PERSID"),
        (b"\x80\x05\x96" + struct.pack("<Q", 4) + b"abcd.", "instruction BYTEARRAY8"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"\x80\x04\x8f.", "instruction EMPTY_SET"),
        (text("os.system") + b"(" + text("id") + b"tR.", "calls something that is not a function"),
        (b"ctorch\nFloatStorage\n)R.", "calls something that is not a function"),
        (b"ccollections\nOrderedDict\n]R.", "calls something that is not a function"),
    ],
)
def test_instructions_that_run_code_are_refused(pickled: bytes, message: str) -> None:
    with pytest.raises(UnsafePickleError, match=message):
        read(pickled)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b".", "a value is missing"),
        (b"\x80\x02(.", "a value is missing"),
        (b"\xff", "damaged"),
        (b"t.", "a mark is missing"),
        (b"h\x05.", "memo entry 5 is missing"),
        (b"q\x00.", "is missing"),
        (b"}" + text("a") + b"(s.", "a value is missing"),
        (b"}(" + text("a") + b"u.", "key without a value"),
        (b"}" + number(1) + number(2) + b"s.", "a dictionary key is a int, expected a string"),
        (b"}(]]u.", "a dictionary key is a list"),
        (b"]" + text("a") + number(2) + b"s.", "a dict is missing"),
        (b"}" + number(2) + b"a.", "a list is missing"),
        (b"]}b.", "a dict is missing"),
        (b"N.", "holds a NoneType, expected a state dict"),
        (b"}.", "holds no tensors at its top level; found: nothing"),
        (b"\x80\x02X" + struct.pack("<I", 1 << 31) + b"abc", "damaged"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc", "damaged"),
        (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"abc", "damaged"),
        (state_dict(b"ccollections\nOrderedDict\n(K\x01tR"), "OrderedDict is called with wrong arguments"),
        (state_dict(tensor(text("not a storage"))), "_rebuild_tensor_v2 is called with wrong arguments"),
        (state_dict(tensor(tensor())), "_rebuild_tensor_v2 is called with wrong arguments"),
        (state_dict(tensor(offset=-1)), "_rebuild_tensor_v2 is called with wrong arguments"),
        (state_dict(tensor(shape=text("4"))), "_rebuild_tensor_v2 is called with wrong arguments"),
        (state_dict(tensor(stride=b"N")), "_rebuild_tensor_v2 is called with wrong arguments"),
        (state_dict(b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "called with wrong arguments"),
        (
            state_dict(b"ctorch._utils\n_rebuild_parameter\n(" + number(1) + b"tR"),
            "called with wrong arguments",
        ),
        (state_dict(tensor(storage(count=-4))), "a storage reference is malformed"),
        (state_dict(tensor(storage("torch._utils\n_rebuild_tensor_v2"))), "a storage reference is malformed"),
        (state_dict(tensor(text("storage") + b"Q")), "a storage reference is malformed"),
        (state_dict(tensor(b")Q")), "a storage reference is malformed"),
    ],
)
def test_damaged_pickles_are_errors(pickled: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(pickled)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(offset=1), "has 4 elements and reaches element 4 of a storage of 4"),
        (tensor(offset=1 << 60), "of a storage of 4"),
        (tensor(stride=numbers(2)), "reaches element 6 of a storage of 4"),
        (tensor(stride=numbers(-1)), "malformed shape"),
        (tensor(stride=numbers(1, 1)), "has 1 dimensions but 2 strides"),
        (tensor(shape=numbers(5)), "reaches element 4 of a storage of 4"),
        (tensor(shape=numbers(1 << 50), stride=numbers(0)), "of a storage of 4"),
        (tensor(shape=numbers(-4)), "malformed shape"),
        (tensor(shape=b"(" + tensor() + b"t"), "malformed shape"),
        (tensor(shape=numbers(*[1] * 9), stride=numbers(*[1] * 9)), "9 dimensions"),
        (tensor(shape=numbers(1 << 62, 0), stride=numbers(1, 1)), "malformed shape"),
        (tensor(storage(count=5)), "tensor w needs 20 bytes, its archive entry data/0 has 16"),
        (tensor(storage("torch\nDoubleStorage")), "tensor w needs 32 bytes"),
        (tensor(storage(count=1 << 61)), "its archive entry data/0 has 16"),
        (tensor(storage(key="1")), "archive entry data/1 is missing"),
        (tensor(storage(key="../data.pkl")), r"archive entry data/\.\./data\.pkl is missing"),
    ],
)
def test_impossible_tensors_are_errors(tmp_path: Path, value: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(archive(tmp_path, state_dict(value)))


@pytest.mark.parametrize(
    "pickled",
    [
        b"]r" + struct.pack("<I", (1 << 32) - 1) + b"0.",  # LONG_BINPUT: a memo array of 2^32 entries
        b"\x80\x04C\x01a\x8e" + struct.pack("<Q", 1 << 40) + b"a.",  # BINBYTES8 that claims a terabyte
        b"]" + b"q\x00h\x00\x86" * 100 + b".",  # tuples doubled 100 times
        b"}]" + b"q\x00h\x00\x86" * 100 + b"Ns.",  # ... as a key, whose hash would take forever
        b"}" + b"]q\x00" + b"h\x00\x86q\x00" * 60 + b"\x93.",
        b"(" * 200_000 + b"t" * 200_000 + b".",
        b")" + b"\x85" * 200_000 + b".",
    ],
)
def test_bombs_are_harmless(pickled: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(CheckpointError):
        read(pickled)
    assert time.monotonic() - start < 20


def test_a_huge_pickle_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(CheckpointError, match="is 101 bytes long, expected at most 100"):
        read(bytes(101))


def test_a_huge_pickle_in_an_archive_is_refused_unread(tmp_path: Path) -> None:
    archive(tmp_path, bytes(torch_pickle.MAX_PICKLE_BYTES + 1))
    with pytest.raises(CheckpointError, match=r"archive entry data\.pkl is \d+ bytes long, expected at most"):
        open_checkpoint(tmp_path)
