"""Models whose blocks are on several engines: what is loaded where, and what gives way."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generate.tiny_models import CAUSAL, write_tiny
from pocketglm.engine.contract import EngineOptions, Stage
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.native.stage import NativeHead, NativeStage
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.errors import DeviceMemoryError, EngineError, InputError
from pocketglm.generate.batch import decode_together
from pocketglm.generate.memory_budget import resident_bytes
from pocketglm.generate.model import Model, load
from pocketglm.package.reader import Package
from pocketglm.plan.placement import Placement

PROMPT = [1, 7, 30, 2, 9, 14, 3, 3, 100, 8]
MIB = 1 << 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight blocks."""
    return write_tiny(tmp_path_factory.mktemp("assembly") / "package", replace(CAUSAL, num_blocks=8))


@pytest.fixture(scope="module")
def expected(path: Path) -> list[int]:
    """What the native engine alone answers."""
    with load(path, "native", threads=1) as model:
        return answer(model)


def answer(model: Model) -> list[int]:
    return list(model.generate(PROMPT, 12))


def placed(path: Path, text: str, **settings: Any) -> Model:
    """On the CPU, which PyTorch takes for a GPU here."""
    return load(path, threads=1, placement=Placement.parse(text, gpu_backend="cpu", **settings))


def test_every_block_is_where_it_should_be(path: Path, expected: list[int]) -> None:
    with placed(path, "ram:0,disk:1,gpu:2-4,ram:5-6,disk:7,gpu:head") as model:
        assert model.engine_name == "native+torch"
        assert [stage.blocks for stage in model.stages] == [range(2), range(2, 5), range(5, 8)]
        assert [(part.engine.name, part.on_gpu) for part in model.parts] == [
            ("native", False), ("torch", True), ("native", False), ("torch", True),
        ]  # fmt: skip
        first, last = model.stages[0], model.stages[2]
        assert isinstance(first, NativeStage)
        assert isinstance(last, NativeStage)
        assert [first.place_of(i) for i in (0, 1)] == ["ram", "disk"]
        assert [last.place_of(i) for i in (5, 6, 7)] == ["ram", "ram", "disk"]
        assert model.lookup == 0  # PyTorch gives a row other bits beside others than alone
        assert answer(model) == expected


def test_a_text_and_names_are_enough(path: Path, expected: list[int]) -> None:
    with load(path, placement="gpu:0-3,ram:4-7", backend="cpu", kv="float32", context=300) as model:
        assert model.placement == Placement.parse(
            "gpu:0-3,ram:4-7", gpu_backend="cpu", kv="float32", context=300
        )
        assert (model.kv, model.context) == ("float32", 300)
        assert answer(model) == expected
    with load(path, "reference", placement="gpu:0-3,ram:4-7", backend="cpu") as model:
        assert model.engine_name == "torch+reference"
        assert model.kv == "float32"  # the reference engine's, which has no choice
    with load(path, "torch", placement="ram:0-7") as model:
        assert model.engine_name == "torch"
        assert answer(model) == expected


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("gpu:0-3,ram:4-8", {}, "for 9 blocks, the model has 8"),
        ("gpu:0-3,ram:4-6,disk:7", {"cpu_engine": "reference"}, "reference cannot read blocks from disk"),
        ("gpu:0-3,ram:4-7", {"cpu_engine": "reference", "kv": "int8"}, "no choice of KV caches"),
        ("gpu:0-3,ram:4-7", {"gpu_engine": "native"}, "native has no backend"),
        ("gpu:0-3,ram:4-7", {"cpu_engine": "abacus"}, "unknown engine"),
        ("ram:0-7", {"cpu_backend": "cuda"}, "native has no backend 'cuda'"),
    ],
)
def test_what_an_engine_lacks_is_refused(
    path: Path, text: str, settings: dict[str, Any], message: str
) -> None:
    backend = "opencl" if settings.get("gpu_engine") == "native" else "cpu"
    with pytest.raises((EngineError, InputError), match=message):
        load(path, placement=Placement.parse(text, gpu_backend=backend, **settings))


def test_a_gpu_that_is_not_there_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchEngine, "find_gpu", lambda self: None)
    with pytest.raises(EngineError, match="torch finds no GPU here") as caught:
        load(path, placement="gpu:0-3,ram:4-7")
    assert "cpu" in str(caught.value.hint)
    with pytest.raises(EngineError, match="native finds no GPU here"):
        load(path, placement=Placement.parse("gpu:0-3,ram:4-7", gpu_engine="native"))


def test_backends_by_block_do_not_go_with_a_placement(path: Path) -> None:
    with pytest.raises(InputError, match="by block"):
        load(path, placement="gpu:0-3,ram:4-7", backend={0: "cpu"})


def gpu_need(path: Path, blocks: int) -> int:
    with Package.open(path) as package:
        return TorchEngine().memory_need(package, range(blocks), EngineOptions(backend="cpu"))


def test_what_does_not_fit_the_gpu_moves_off_it(
    path: Path, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with placed(path, "gpu:0-5,ram:6-7", gpu_memory=gpu_need(path, 4)) as model:
        assert model.placement is not None
        assert model.placement.text == "gpu:0-3,ram:4-7,ram:head"
        assert answer(model) == expected
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "MiB are needed on cpu" in warnings[0]
    assert warnings[0].endswith("moved off the GPU: blocks 4-5 to ram")


def test_blocks_and_head_share_what_the_gpu_has(path: Path) -> None:
    need = gpu_need(path, 8)
    with Package.open(path) as package:
        head = TorchEngine().memory_need(package, None, EngineOptions())
    with placed(path, "gpu:0-7,gpu:head", gpu_memory=need + head) as model:
        assert model.placement is not None
        assert model.placement.count("gpu") == 8
    with placed(path, "gpu:0-7,gpu:head", gpu_memory=need + head - 1) as model:
        assert model.placement is not None
        assert model.placement.text == "gpu:0-6,ram:7,gpu:head"


def test_in_the_end_nothing_is_on_the_gpu(path: Path, expected: list[int]) -> None:
    with placed(path, "gpu:0-7,gpu:head", gpu_memory=1) as model:
        assert model.placement is not None
        assert model.placement.text == "ram:0-7,ram:head"
        assert model.engine_name == "native"
        assert answer(model) == expected


def test_under_a_memory_limit_they_move_to_disk(path: Path) -> None:
    with placed(path, "gpu:0-5,ram:6-7", gpu_memory=gpu_need(path, 4), memory=4096 * MIB) as model:
        assert model.placement is not None
        assert model.placement.text == "gpu:0-3,disk:4-5,ram:6-7,ram:head"


class SmallGpu:
    """Makes stages on the GPU fail in passes while they have more than some blocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
        from pocketglm.engine.torch.stage import TorchStage

        real = TorchStage.forward

        def forward(stage: TorchStage, hidden: Any, batch: Any) -> Any:
            if self.is_small and len(stage.blocks) > blocks:
                raise DeviceMemoryError("out of device memory for a pass")
            return real(stage, hidden, batch)

        self.is_small = False
        monkeypatch.setattr(TorchStage, "forward", forward)


@pytest.mark.parametrize("kv", ["float32", "float16"])
def test_a_pass_that_needs_more_goes_on_with_fewer_blocks(
    path: Path, kv: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caches move with their blocks: all open sessions go on as if nothing had happened."""
    gpu = SmallGpu(monkeypatch, 3)
    with placed(path, "ram:0,gpu:1-5,ram:6-7", kv=kv) as model, load(path, "native", kv=kv) as alone:
        sessions, others = ([m.session() for _ in range(3)] for m in (model, alone))
        for index in (0, 1):
            for session in (sessions[index], others[index]):
                session.forward(PROMPT[index:])
        gpu.is_small = True
        found = decode_together(sessions[:2], [5, 6])
        np.testing.assert_allclose(found, decode_together(others[:2], [5, 6]), atol=0.02)
        assert model.placement is not None
        assert model.placement.text == "ram:0,gpu:1-3,ram:4-7,ram:head"
        assert [session.length for session in sessions] == [11, 10, 0]
        assert len(caplog.records) == 2
        np.testing.assert_allclose(sessions[2].forward(PROMPT), others[2].forward(PROMPT), atol=0.02)
        for session in (*sessions, *others):
            session.close()
        assert model.session().forward([1]).shape == (1, model.spec.vocab_size)


def test_where_nothing_has_room_the_session_says_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks that leave the GPU find no room either: an error, and an orderly end."""
    gpu = SmallGpu(monkeypatch, 3)
    with placed(path, "gpu:0-5,ram:6-7") as model, model.session() as session:
        session.forward(PROMPT)

        def load_blocks(*arguments: Any) -> Any:
            raise EngineError("the memory limit is too small")

        gpu.is_small = True
        monkeypatch.setattr(NativeEngine, "load_blocks", load_blocks)
        with pytest.raises(EngineError, match="memory limit is too small"):
            session.forward([5])
        gpu.is_small = False
        with pytest.raises(EngineError, match="released"):
            session.forward([5])


def test_short_memory_without_a_placement_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SmallGpu(monkeypatch, 3).is_small = True
    with load(path, "torch", backend="cpu") as model, model.session() as session:
        with pytest.raises(DeviceMemoryError):
            session.forward(PROMPT)
        assert session.length == 0


def test_a_head_that_needs_more_gets_the_room_of_a_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketglm.engine.torch.stage import TorchHead

    with placed(path, "gpu:0-7,gpu:head") as model:
        head, real = model.head, TorchHead.logits

        def logits(self: TorchHead, hidden: Any) -> Any:
            if self is head:
                raise DeviceMemoryError("out of device memory for logits")
            return real(self, hidden)

        monkeypatch.setattr(TorchHead, "logits", logits)
        with model.session() as session:
            session.forward(PROMPT)
        assert model.placement is not None
        assert model.placement.text == "gpu:0-6,ram:7,gpu:head"


def test_stages_share_a_memory_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with the head and all else they are allowed the limit, and each gets what it needs."""
    limits: list[tuple[int, int]] = []
    real = NativeEngine.load_blocks

    def load_blocks(self: NativeEngine, package: Package, blocks: range, options: EngineOptions) -> Stage:
        head = self.memory_need(package, None, options)
        limits.append(((options.memory_left or 0) - head, self.memory_need(package, blocks, options)))
        return real(self, package, blocks, options)

    monkeypatch.setattr(NativeEngine, "load_blocks", load_blocks)
    memory = resident_bytes() + 600 * MIB
    with placed(path, "ram:0-1,gpu:2-4,ram:5-7", memory=memory, context=128) as model:
        assert answer(model)
        assert isinstance(model.head, NativeHead)
    left = sum(limit for limit, _ in limits)
    assert 400 * MIB < left < 600 * MIB
    assert all(limit >= need for limit, need in limits)
    assert limits[0][0] - limits[0][1] < limits[1][0] - limits[1][1]  # two blocks and three


def test_too_little_memory_for_all_stages_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(EngineError, match="memory limit of 64 MiB is too small, at least"):
        placed(path, "ram:0-1,gpu:2-4,ram:5-7", memory=64 * MIB)


def test_what_was_loaded_is_released_where_the_rest_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = TorchEngine.load_blocks

    def load_blocks(self: TorchEngine, *arguments: Any) -> Any:
        made.append(real(self, *arguments))
        return made[-1]

    def load_head(self: NativeEngine, *arguments: Any) -> Any:
        raise EngineError("no head")

    monkeypatch.setattr(TorchEngine, "load_blocks", load_blocks)
    monkeypatch.setattr(NativeEngine, "load_head", load_head)
    with pytest.raises(EngineError, match="no head"):
        placed(path, "gpu:0-1,ram:2-4,gpu:5-7")
    assert len(made) == 2
    for stage in made:
        with pytest.raises(EngineError, match="released"):
            stage.open(0)


def test_a_session_goes_on_under_another_placement(path: Path, expected: list[int], tmp_path: Path) -> None:
    file = tmp_path / "session.npz"
    with placed(path, "gpu:0-2,ram:3-7") as model, model.session() as session:
        session.forward(PROMPT[:-1])
        session.save(file)
    for text in ("ram:0-7", "ram:0,gpu:1-7", "disk:0-7"):
        with placed(path, text) as model, model.session() as session:
            session.restore(file)
            assert session.length == len(PROMPT) - 1
            assert int(session.forward(PROMPT[-1:])[-1].argmax()) == expected[0]


def test_kept_prefixes_over_several_stages(path: Path, expected: list[int]) -> None:
    with placed(path, "gpu:0-2,ram:3-5,gpu:6-7,gpu:head") as model:
        first = model.prefixes.take(PROMPT)
        first.forward(PROMPT * 3)
        model.prefixes.give_back(first)
        session = model.prefixes.take(PROMPT * 2)
        assert session.length == len(PROMPT) * 2 - 1
        session.truncate(len(PROMPT) - 1)
        assert int(session.forward(PROMPT[-1:])[-1].argmax()) == expected[0]
