"""Recorded passes against the same passes computed afresh."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.contract_specs import FORMATS, SPECS, prompt
from engine.runner import Runner
from engine.tiny_packages import random_tensors, write_package
from pocketglm.engine.contract import EngineOptions, KVState
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.package.reader import Package

pytest.importorskip("triton", reason="Triton is not installed: it exists for Linux on x86-64")

from engine.torch.kernels.launches import record_launches
from pocketglm.engine.torch.kernels import replay
from pocketglm.engine.torch.operations import Record, Replay

SPEC = replace(
    SPECS["prefix_2d_alpha_layernorm_gelu"],
    num_blocks=1,
    hidden_size=32,
    num_heads=2,
    num_kv_heads=2,
    intermediate_size=32,
)

RunnerOf = Callable[[Record | None], Runner]


class Counted:
    """Real graphs on a GPU, their likeness elsewhere, and how many were made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, compute: Callable[[], torch.Tensor], device: torch.device) -> Replay:
        self.made += 1
        return (replay.record_graph if device.type == "cuda" else record_launches)(compute, device)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    path = tmp_path_factory.mktemp("replay") / "package"
    with Package.open(write_package(path, SPEC, random_tensors(SPEC), FORMATS["int4-g32"])) as package:
        yield package


@pytest.fixture
def runner_of(package: Package, device: torch.device) -> RunnerOf:
    options = EngineOptions(backend=str(device))
    return lambda record: Runner(TorchEngine(kernels=True, record=record), package, options=options)


def start(runner: Runner, sequence: int, length: int) -> None:
    """A sequence of `length` seeded positions, none of them computed."""
    generator = np.random.default_rng(sequence)
    shape = (2, 1, length, SPEC.num_kv_heads, SPEC.head_dim)
    runner.open(sequence)
    runner.stages[0].restore(sequence, KVState(*generator.normal(size=shape).astype(np.float32)))
    runner.trackers[sequence].advance(prompt(SPEC, length))


def close(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    limit = 1e-5 * np.abs(np.concatenate(expected)).max()
    return all(np.abs(one - other).max() <= limit for one, other in zip(found, expected, strict=True))


def decode(runner: Runner) -> list[np.ndarray]:
    """Tokens of one sequence, of two, in turned order, after a cut, and of another on other pages."""
    start(runner, 0, 20)
    start(runner, 1, 63)
    found = [runner.feed(tokens) for tokens in ({0: [1]}, {0: [2], 1: [3]}, {1: [4], 0: [5]})]
    runner.truncate(1, 40)
    found.append(runner.feed({1: [7]}))
    runner.stages[0].close(0)
    start(runner, 2, 11)
    found.append(runner.feed({2: [8], 1: [9]}))
    return [logits for answers in found for logits in answers.values()]


def test_replays_answer_as_passes(runner_of: RunnerOf) -> None:
    counted = Counted()
    assert close(decode(runner_of(counted)), decode(runner_of(None)))
    assert counted.made == 2  # one row and two


def test_longer_caches_are_recorded_anew(runner_of: RunnerOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 65th position lies on a second page, for which a recording of one has no room."""
    monkeypatch.setattr(replay, "LEAST_PAGES", 1)
    counted, found = Counted(), []
    for record in (counted, None):
        runner = runner_of(record)
        start(runner, 0, 63)
        found.append([runner.feed({0: [token]})[0] for token in (1, 2)])
    assert close(*found)
    assert counted.made == 2


def test_a_recording_that_fails_is_said_once(runner_of: RunnerOf) -> None:
    tried = []

    def refuses(compute: Callable[[], torch.Tensor], device: torch.device) -> Replay:
        tried.append(compute)
        raise RuntimeError("operation not permitted when stream is capturing")

    runner, fresh = runner_of(refuses), runner_of(None)
    for either in (runner, fresh):
        start(either, 0, 20)
    with pytest.warns(UserWarning, match="without CUDA graphs: recording failed .operation not permitted"):
        found = runner.feed({0: [1]})[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner.feed({0: [2]})
    assert len(tried) == 1
    np.testing.assert_array_equal(found, fresh.feed({0: [1]})[0])


def test_prompts_and_large_batches_are_not_recorded(
    runner_of: RunnerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(compute: Callable[[], torch.Tensor], device: torch.device) -> Replay:
        raise AssertionError("a pass was recorded")

    monkeypatch.setattr(replay, "MOST_ROWS", 1)
    runner = runner_of(refuses)
    start(runner, 0, 20)
    start(runner, 1, 20)
    runner.feed({0: [1, 2]})
    runner.feed({0: [3], 1: [4]})
    assert (runner.stages[0].length(0), runner.stages[0].length(1)) == (23, 21)


def test_release_frees_recordings(runner_of: RunnerOf) -> None:
    kept = []

    def keeps(compute: Callable[[], torch.Tensor], device: torch.device) -> Replay:
        output = compute()
        kept.append(weakref.ref(output))
        return lambda: output

    runner = runner_of(keeps)
    start(runner, 0, 20)
    runner.feed({0: [1]})
    gc.collect()
    assert kept[0]() is not None
    runner.release()
    gc.collect()
    assert kept[0]() is None
