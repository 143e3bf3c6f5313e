"""The engine contract, executable. An engine passes it by a subclass in `test_contract.py`.

Every test runs whole sequences through a tiny package and compares logits: how they were computed
(in one pass or many, alone or in a batch, in one stage or several) must not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from engine.contract_specs import FORMATS, SPECS, context, prompt
from engine.runner import Runner
from engine.tiny_packages import dequantized_tensors, random_tensors, write_package
from pocketglm.engine.contract import Batch, Engine, EngineOptions, Float32, KVState, Segment
from pocketglm.engine.registry import get_engine
from pocketglm.errors import EngineError
from pocketglm.package.reader import Package

LENGTH = 24
"""Tokens of a test sequence: several sliding windows, and past the context of the prefix spec."""

OpenPackage = Callable[..., Package]


def relative_error(found: Float32, expected: Float32) -> float:
    """Largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def open_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPackage]:
    """Opens the package of a spec in a format; each is written once."""
    yield from opened_packages(tmp_path_factory)


def opened_packages(
    tmp_path_factory: pytest.TempPathFactory, prepare: Callable[[Path], object] = Path
) -> Iterator[OpenPackage]:
    """What `open_package` gives; `prepare` adds what an engine needs to a new package."""
    made: dict[tuple[str, str], Package] = {}

    def get(spec_name: str, format_name: str = "float32") -> Package:
        key = (spec_name, format_name)
        if key not in made:
            path = tmp_path_factory.mktemp("packages") / f"{spec_name}-{format_name}"
            spec = SPECS[spec_name]
            write_package(path, spec, random_tensors(spec), FORMATS[format_name])
            prepare(path)
            made[key] = Package.open(path)
        return made[key]

    yield get
    for package in made.values():
        package.close()


class EngineContract:
    """Tests of one engine. A subclass names it and says how exact its arithmetic is."""

    engine_name: ClassVar[str]
    same_weights: ClassVar[float]  # error where the same weights are computed in another order
    other_engine: ClassVar[float]  # error against the reference engine in float32
    quantized: ClassVar[float | None] = None  # the same for quantized weights, where it differs
    saved_half: ClassVar[float] = 5e-3  # error after a cache was saved as float16

    @pytest.fixture
    def engine(self) -> Engine:
        return get_engine(self.engine_name)

    @pytest.fixture(params=SPECS)
    def package(self, request: pytest.FixtureRequest, open_package: OpenPackage) -> Package:
        return open_package(request.param)

    @pytest.fixture
    def runner(self, engine: Engine, package: Package) -> Iterator[Runner]:
        runner = Runner(engine, package)
        yield runner
        runner.release()

    def same(self, found: Float32, expected: Float32) -> None:
        assert relative_error(found, expected) <= self.same_weights

    # One sequence

    def test_declares_capabilities(self, engine: Engine) -> None:
        capabilities = engine.capabilities()
        assert engine.name == self.engine_name
        assert capabilities.weight_bits <= {32, 16, 8, 4}
        assert capabilities.weight_bits
        assert capabilities.devices

    def test_agrees_with_the_streaming_reference(self, runner: Runner, package: Package) -> None:
        ids = prompt(package.spec, LENGTH)
        oracle = Runner(get_engine("reference"), package, options=EngineOptions(memory_bytes=1))
        assert relative_error(runner.run(ids), oracle.run(ids)) <= self.other_engine

    @pytest.mark.parametrize("steps", [(1,), (5, 1), (7,)], ids=["tokens", "mixed", "chunks"])
    def test_chunking_does_not_matter(self, runner: Runner, package: Package, steps: tuple[int, ...]) -> None:
        ids = prompt(package.spec, LENGTH)
        whole = runner.run(ids)
        chunks = [context(package.spec)]
        while chunks[-1] + steps[len(chunks) % len(steps)] < LENGTH:
            chunks.append(chunks[-1] + steps[len(chunks) % len(steps)])
        self.same(runner.run(ids, sequence=1, chunks=chunks), whole)

    def test_cache_grows(self, engine: Engine, open_package: OpenPackage) -> None:
        runner = Runner(engine, open_package("sliding_window"))
        ids = prompt(runner.package.spec, 300)
        whole = runner.run(ids)
        self.same(runner.run(ids, sequence=1, chunks=(1, 63, 64, 65, 128, 200, 299)), whole)
        assert runner.stages[0].length(1) == 300

    def test_forward_leaves_its_input(self, runner: Runner, package: Package) -> None:
        runner.open(0)
        hidden = np.ones((LENGTH, package.spec.hidden_size), dtype=np.float32)
        batch = runner.batch({0: prompt(package.spec, LENGTH)})
        output = runner.stages[0].forward(hidden, batch)
        assert (hidden == 1).all()
        assert output.shape == hidden.shape
        assert output.dtype == np.float32

    # Several sequences

    def test_batch_equals_each_alone(self, runner: Runner, package: Package) -> None:
        spec = package.spec
        prompts = {sequence: prompt(spec, LENGTH + 2 * sequence, seed=sequence) for sequence in range(3)}
        alone = {sequence: runner.run(ids, sequence=10 + sequence) for sequence, ids in prompts.items()}
        for sequence in prompts:
            runner.open(sequence)
        start = {0: 20, 2: 16}
        first = runner.feed({s: prompts[s][:end] for s, end in start.items()})
        # A prompt that begins, one that goes on and one that decodes, in one pass
        second = runner.feed({2: prompts[2][16:], 0: prompts[0][20:21], 1: prompts[1]})
        third = runner.feed({0: prompts[0][21:]})
        self.same(second[1], alone[1])
        self.same(np.concatenate([first[2], second[2]]), alone[2])
        self.same(np.concatenate([first[0], second[0], third[0]]), alone[0])

    def test_closing_one_leaves_the_others(self, engine: Engine, open_package: OpenPackage) -> None:
        runner = Runner(engine, open_package("plain"))
        ids = prompt(runner.package.spec, LENGTH)
        whole = runner.run(ids)
        runner.open(1)
        runner.feed({1: ids[:10]})
        for stage in runner.stages:
            stage.close(0)
            stage.close(0)
            stage.close(99)
        self.same(runner.feed({1: ids[10:]})[1], whole[10:])
        runner.open(0)
        assert runner.stages[0].length(0) == 0

    # Caches

    def test_truncate_and_redo(self, runner: Runner, package: Package) -> None:
        ids = prompt(package.spec, LENGTH)
        whole = runner.run(ids)
        keep = context(package.spec) + 3
        runner.truncate(0, keep)
        runner.feed({0: prompt(package.spec, 12, seed=5)[8:]})
        runner.truncate(0, keep)
        assert runner.stages[0].length(0) == keep
        self.same(runner.feed({0: ids[keep:]})[0], whole[keep:])
        runner.truncate(0, 0)
        self.same(runner.feed({0: ids})[0], whole)

    def test_copy_prefix(self, runner: Runner, package: Package) -> None:
        ids = prompt(package.spec, LENGTH)
        whole = runner.run(ids)
        runner.open(1)
        keep = context(package.spec) + 4
        runner.continue_as(0, 1, keep)
        runner.feed({0: [1, 2, 3]})  # the source goes on; the copy is its own
        self.same(runner.feed({1: ids[keep:]})[1], whole[keep:])

    def test_save_and_restore(self, runner: Runner, package: Package) -> None:
        ids = prompt(package.spec, LENGTH)
        whole = runner.run(ids)
        keep = context(package.spec) + 4
        runner.truncate(0, keep)
        states = [stage.save(0) for stage in runner.stages]
        expected = (len(runner.stages[0].blocks), keep, package.spec.num_kv_heads, package.spec.head_dim)
        assert states[0].keys.shape == states[0].values.shape == expected
        assert states[0].keys.dtype in (np.float32, np.float16)
        runner.feed({0: [1] * 5})  # a saved cache is a copy
        for sequence, dtype in ((1, states[0].keys.dtype), (2, np.dtype(np.float16))):
            runner.open(sequence)
            for stage, state in zip(runner.stages, states, strict=True):
                stage.restore(sequence, KVState(state.keys.astype(dtype), state.values.astype(dtype)))
            runner.trackers[sequence] = runner.trackers[0].copy()
            runner.trackers[sequence].truncate(keep)
            limit = self.same_weights if sequence == 1 else self.saved_half
            found = runner.feed({sequence: ids[keep:]})[sequence]
            assert relative_error(found, whole[keep:]) <= limit

    # Stages, weights, options

    def test_stages_compose(self, engine: Engine, runner: Runner, package: Package) -> None:
        ids = prompt(package.spec, LENGTH)
        split = Runner(engine, package, splits=(1, 2))
        assert [stage.blocks for stage in split.stages] == [range(0, 1), range(1, 2), range(2, 3)]
        self.same(split.run(ids, chunks=(20, 21)), runner.run(ids))

    @pytest.mark.parametrize("format_name", FORMATS)
    @pytest.mark.parametrize("spec_name", ["grouped_interleaved_partial_bias", "llama3_scaling_odd_sizes"])
    def test_weight_formats(
        self, engine: Engine, open_package: OpenPackage, spec_name: str, format_name: str, tmp_path: Path
    ) -> None:
        """A quantized package computes what a float32 package of its dequantized weights computes."""
        if FORMATS[format_name].bits not in engine.capabilities().weight_bits:
            pytest.skip(f"{self.engine_name} does not run {FORMATS[format_name].bits}-bit weights")
        package = open_package(spec_name, format_name)
        ids = prompt(package.spec, LENGTH)
        tensors = dequantized_tensors(package)
        exact_path = write_package(tmp_path / "exact", package.spec, tensors, FORMATS["float32"])
        with Package.open(exact_path) as exact:
            expected = Runner(get_engine("reference"), exact).run(ids)
        exact_limit = self.quantized is None or not FORMATS[format_name].quantized
        limit = self.other_engine if exact_limit else self.quantized
        assert relative_error(Runner(engine, package).run(ids), expected) <= limit

    @pytest.mark.parametrize("options", [EngineOptions(threads=1), EngineOptions(threads=2)])
    def test_threads_do_not_matter(
        self, engine: Engine, open_package: OpenPackage, options: EngineOptions
    ) -> None:
        package = open_package("plain", "int4-g32")
        ids = prompt(package.spec, LENGTH)
        self.same(Runner(engine, package, options=options).run(ids), Runner(engine, package).run(ids))

    def test_head_takes_any_rows(self, runner: Runner, package: Package) -> None:
        hidden = np.random.default_rng(3).normal(size=(9, package.spec.hidden_size)).astype(np.float32)
        logits = runner.head.logits(hidden)
        assert logits.shape == (9, package.spec.vocab_size)
        self.same(runner.head.logits(hidden[4:5]), logits[4:5])

    # Refusals

    @pytest.mark.parametrize("blocks", [range(0, 0), range(2, 4), range(-1, 2), range(0, 3, 2)], ids=str)
    def test_refuses_block_ranges(self, engine: Engine, open_package: OpenPackage, blocks: range) -> None:
        with pytest.raises(EngineError, match="blocks"):
            engine.load_blocks(open_package("plain"), blocks, EngineOptions())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: replace(s, start=s.start + 1), "starts at"),
            (lambda s: replace(s, start=s.start - 1), "starts at"),
            (lambda s: replace(s, sequence=77), "not open"),
            (lambda s: replace(s, positions=s.positions.astype(np.int64)), "positions"),
            (lambda s: replace(s, positions=s.positions.repeat(3, axis=0)), "positions"),
            (lambda s: replace(s, positions=s.positions[0]), "positions"),
            (lambda s: replace(s, positions=s.positions[:, :1]), "rows"),
            (lambda s: replace(s, positions=s.positions[:, :0]), "no rows"),
            (lambda s: replace(s, positions=s.positions - 1000), "negative"),
            (lambda s: replace(s, prefix=-1), "prefix"),
            (lambda s: replace(s, prefix=200), "prefix"),
        ],
    )
    def test_bad_segment_changes_nothing(
        self, runner: Runner, package: Package, change: Callable[[Segment], Segment], message: str
    ) -> None:
        ids = prompt(package.spec, LENGTH)
        whole = runner.run(ids)
        runner.open(1)
        runner.feed({1: ids[:20]})
        good = runner.batch({1: ids[20:]}).segments[0]
        hidden = np.ones((good.count, package.spec.hidden_size), dtype=np.float32)
        with pytest.raises(EngineError, match=message):
            runner.stages[0].forward(hidden, Batch((change(good),)))
        assert runner.stages[0].length(1) == 20
        runner.trackers[1].truncate(20)
        self.same(runner.feed({1: ids[20:]})[1], whole[20:])

    def test_bad_batch_changes_nothing(self, engine: Engine, open_package: OpenPackage) -> None:
        package = open_package("plain")
        runner = Runner(engine, package)
        stage, size = runner.stages[0], package.spec.hidden_size
        runner.open(0)
        runner.open(1)
        first, second = runner.batch({0: [1, 2], 1: [3, 4]}).segments
        hidden = np.ones((4, size), dtype=np.float32)
        bad: list[tuple[Float32, tuple[Segment, ...], str]] = [
            (hidden, (first, first), "twice"),
            (hidden, (first, replace(second, start=1)), "starts at"),
            (hidden, (), "empty"),
            (hidden[:3], (first, second), "rows"),
            (hidden[:, :-1], (first, second), "shape"),
            (hidden[None], (first, second), "shape"),
            (hidden.astype(np.float64), (first, second), "float32"),
        ]
        for array, segments, message in bad:
            with pytest.raises(EngineError, match=message):
                stage.forward(array, Batch(segments))
            assert stage.length(0) == stage.length(1) == 0
        assert stage.forward(hidden, Batch((first, second))).shape == (4, size)

    def test_bad_cache_calls_change_nothing(self, engine: Engine, open_package: OpenPackage) -> None:
        runner = Runner(engine, open_package("plain"))
        stage = runner.stages[0]
        runner.run([1, 2, 3, 4])
        runner.open(1)
        state = stage.save(0)
        calls: list[Callable[[], object]] = [
            lambda: stage.open(0),
            lambda: stage.length(9),
            lambda: stage.save(9),
            lambda: stage.truncate(9, 0),
            lambda: stage.truncate(0, 5),
            lambda: stage.truncate(0, -1),
            lambda: stage.copy_prefix(0, 0, 2),
            lambda: stage.copy_prefix(0, 9, 2),
            lambda: stage.copy_prefix(9, 1, 0),
            lambda: stage.copy_prefix(0, 1, 5),
            lambda: stage.copy_prefix(0, 1, -1),
            lambda: stage.restore(0, state),
            lambda: stage.restore(9, state),
            lambda: stage.restore(1, KVState(state.keys[:2], state.values[:2])),
            lambda: stage.restore(1, KVState(state.keys, state.values[:, :3])),
            lambda: stage.restore(1, KVState(state.keys.astype(np.float64), state.values)),
            lambda: stage.restore(1, KVState(state.keys[0, :, 0, 0], state.values)),
        ]
        for call in calls:
            with pytest.raises(EngineError):
                call()
            assert (stage.length(0), stage.length(1)) == (4, 0)

    def test_head_refuses_bad_shapes(self, engine: Engine, open_package: OpenPackage) -> None:
        head = engine.load_head(open_package("plain"), EngineOptions())
        for bad in (np.ones((2, 63), np.float32), np.ones(64, np.float32), np.ones((2, 64), np.float64)):
            with pytest.raises(EngineError):
                head.logits(bad)

    def test_release_is_final_and_idempotent(self, engine: Engine, open_package: OpenPackage) -> None:
        runner = Runner(engine, open_package("plain"))
        runner.open(0)
        batch = runner.batch({0: [1]})
        hidden = np.ones((1, 64), dtype=np.float32)
        runner.release()
        runner.release()
        for call in (
            lambda: runner.stages[0].forward(hidden, batch),
            lambda: runner.stages[0].open(5),
            lambda: runner.head.logits(hidden),
        ):
            with pytest.raises(EngineError, match="released"):
                call()
