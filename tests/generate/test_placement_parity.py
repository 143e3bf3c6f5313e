"""A model split between engines is the model: the tokens of one engine alone, and logits as close to them
as engines are to one another (`tests/engine/test_contract.py`).

Every place of every block of tiny models; every split of SmolLM2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from engine.contract_specs import SPECS
from engine.mnn.graphs import add_graphs
from generate.tiny_models import write_tiny
from pocketglm.convert import ConvertSettings, convert
from pocketglm.engine.contract import Batch, EngineOptions, Float32, KVType, Segment, Stage, embed
from pocketglm.engine.native.engine import NativeEngine
from pocketglm.engine.positions import PositionTracker
from pocketglm.engine.torch.engine import TorchEngine
from pocketglm.generate.batch import decode_together
from pocketglm.generate.model import Model, load
from pocketglm.generate.perplexity import log_softmax
from pocketglm.generate.stage_chain import StageChain
from pocketglm.package.reader import Package
from pocketglm.plan.placement import PLACES, Placement
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings, head_format

TOLERANCES: dict[KVType, float] = {"float32": 1e-4, "float16": 5e-3, "int8": 5e-2}
"""Of logits, against the largest: what the contract's suite allows caches of a type in float32 models."""

QUANTIZED = 5e-2
"""Where weights are quantized the native engine makes activations int8, PyTorch does not."""

STEPS = 6


@dataclass(frozen=True)
class Answer:
    """Logits of a prompt and of steps after it, in passes of one and of two sequences; greedy tokens."""

    prompt: Float32
    steps: Float32
    together: Float32
    tokens: list[int]


def answer_of(model: Model, prompt: Sequence[int]) -> Answer:
    with model.session() as one, model.session() as two:
        logits = [one.forward(prompt)]
        tokens = [int(logits[0][-1].argmax())]
        for _ in range(STEPS):
            logits.append(one.forward(tokens[-1:]))
            tokens.append(int(logits[-1][-1].argmax()))
        one.truncate(len(prompt))
        two.forward(prompt)
        pairs = [decode_together([one, two], [token, token]) for token in tokens[:3]]
        return Answer(logits[0], np.concatenate(logits[1:]), np.concatenate(pairs), tokens)


def assert_alike(found: Answer, expected: Answer, tolerance: float) -> None:
    assert found.tokens == expected.tokens
    for name in ("prompt", "steps", "together"):
        assert difference(getattr(found, name), getattr(expected, name)) < tolerance, name


def difference(found: Float32, expected: Float32) -> float:
    """The largest, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@dataclass(frozen=True)
class Tiny:
    path: Path
    prompt: list[int]
    blocks: int


@pytest.fixture(scope="module", params=["chatglm-v1-tiny", "chatglm2-tiny", "llama"])
def tiny(request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    path = tmp_path_factory.mktemp("tiny") / "package"
    if request.param == "llama":
        spec = replace(SPECS["grouped_interleaved_partial_bias"], vocab_size=264, num_blocks=4)
        return Tiny(write_tiny(path, spec), [1, 50, 7, 99, 20, 3, 3, 42, 8], 4)
    settings = ConvertSettings(QuantizeSettings(WeightFormat(32), WeightFormat(32)), report=False)
    convert(golden / request.param, path, settings)
    prompt = np.load(golden / request.param / "golden.npz")["prompt_ids"].tolist()
    return Tiny(path, prompt, 4)


@pytest.fixture(scope="module")
def alone(tiny: Tiny) -> dict[tuple[str, KVType], Answer]:
    """What each engine answers by itself, with each type of KV cache."""
    found = {}
    for engine, kv in itertools.product(("native", "torch"), TOLERANCES):
        backend = "cpu" if engine == "torch" else None
        with load(tiny.path, engine, 1, backend=backend, kv=kv) as model:
            found[engine, kv] = answer_of(model, tiny.prompt)
    return found


def run_placed(tiny: Tiny, placement: Placement) -> Answer:
    with load(tiny.path, threads=1, placement=placement) as model:
        assert model.placement == placement
        return answer_of(model, tiny.prompt)


def test_every_block_in_every_place(tiny: Tiny, alone: dict[tuple[str, KVType], Answer]) -> None:
    """81 placements: GPU first, last, in the middle and several times; blocks read from disk anywhere."""
    for places in itertools.product(PLACES, repeat=tiny.blocks):
        placement = Placement(places, kv="float32", gpu_backend="cpu")
        found = run_placed(tiny, placement)
        for engine in ("native", "torch"):
            assert_alike(found, alone[engine, "float32"], TOLERANCES["float32"])


@pytest.mark.parametrize("kv", ["float16", "int8"])
def test_every_split_with_smaller_caches(
    tiny: Tiny, alone: dict[tuple[str, KVType], Answer], kv: KVType
) -> None:
    for on_gpu in range(tiny.blocks + 1):
        placement = Placement.first_on_gpu(tiny.blocks, on_gpu, kv=kv, gpu_backend="cpu")
        found = run_placed(tiny, placement)
        for engine in ("native", "torch"):
            assert_alike(found, alone[engine, kv], TOLERANCES[kv])


@pytest.fixture(scope="module")
def with_graphs(tiny: Tiny) -> Tiny:
    add_graphs(tiny.path)
    return tiny


@pytest.mark.parametrize(("gpu", "cpu"), [("mnn", "mnn"), ("mnn", "native"), ("torch", "mnn")])
def test_blocks_on_mnn(
    with_graphs: Tiny, alone: dict[tuple[str, KVType], Answer], gpu: str, cpu: str
) -> None:
    """MNN beside itself, as the original design placed its blocks, and beside the other engines. Its caches
    are float32, whatever those of the others hold."""
    tolerance = TOLERANCES["float32" if gpu == cpu else "float16"]
    for text in ("gpu:0-1,ram:2-3", "ram:0,gpu:1-2,ram:3,gpu:head", "gpu:0-3"):
        placement = Placement.parse(text, gpu_engine=gpu, cpu_engine=cpu, gpu_backend="cpu")
        with load(with_graphs.path, placement=placement) as model:
            assert model.kv == "float32"
        assert_alike(run_placed(with_graphs, placement), alone["native", "float32"], tolerance)


@pytest.fixture(scope="module")
def smollm2_packages(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By bits. The GGUF file is of 4-bit groups of 32, which both hold exactly."""
    made = {}
    for weights in (WeightFormat(16), WeightFormat(4, 32)):
        settings = ConvertSettings(QuantizeSettings(weights, head_format(weights)), report=False)
        output = tmp_path_factory.mktemp("smollm2") / "package"
        made[weights.bits] = convert(smollm2, output, settings)
    return made


@dataclass(frozen=True)
class Passes:
    """Two prompts, one after the other, then a token of each together, step by step."""

    inputs: list[tuple[Float32, Batch]]
    tokens: list[list[int]]  # greedy tokens of one engine alone, at each pass
    logits: list[Float32]


def greedy_passes(package: Package, chain: StageChain, prompts: Sequence[Sequence[int]]) -> Passes:
    head = NativeEngine().load_head(package, EngineOptions())
    trackers = [PositionTracker(package.spec) for _ in prompts]
    made = Passes([], [], [])

    def run(ids: dict[int, Sequence[int]]) -> list[int]:
        segments = []
        for sequence, row in ids.items():
            start = trackers[sequence].length
            segments.append(Segment(sequence, start, *trackers[sequence].advance(row)))
        hidden, batch = embed(package, [i for row in ids.values() for i in row]), Batch(tuple(segments))
        made.inputs.append((hidden.copy(), batch))  # the chain may compute in place
        logits = head.logits(chain.forward(hidden, batch)[last_rows(batch)])
        made.logits.append(logits)
        made.tokens.append(logits.argmax(1).tolist())
        return made.tokens[-1]

    for sequence in range(len(prompts)):
        chain.open(sequence)
    last = [run({sequence: prompt})[0] for sequence, prompt in enumerate(prompts)]
    for _ in range(STEPS):
        last = run({sequence: [token] for sequence, token in enumerate(last)})
    return made


def last_rows(batch: Batch) -> list[int]:
    ends = np.cumsum([segment.count for segment in batch.segments])
    return [int(end) - 1 for end in ends]


def hidden_after(stages: Sequence[Stage], passes: Passes) -> list[list[Float32]]:
    """[stage][pass]: what goes into each stage of a chain and, at the end, what comes out of the last."""
    found: list[list[Float32]] = [[] for _ in range(len(stages) + 1)]
    for stage, sequence in itertools.product(stages, range(2)):
        stage.open(sequence)
    for hidden, batch in passes.inputs:
        found[0].append(hidden)
        for index, stage in enumerate(stages):
            found[index + 1].append(stage.forward(found[index][-1], batch))
    return found


@dataclass(frozen=True)
class Split:
    """How far one split is from one engine alone."""

    same_tokens: bool
    difference: float
    divergence: float  # mean KL(alone || split), nats a token


def splits_of_smollm2(path: Path, kv: KVType) -> Iterator[Split]:
    """What the first blocks make in PyTorch goes into a native stage of the others, pass by pass."""
    options = EngineOptions(backend="cpu", kv=kv)
    with Package.open(path) as package:
        blocks, native, torch = range(package.spec.num_blocks), NativeEngine(), TorchEngine()
        whole = StageChain([native.load_blocks(package, blocks, options)])
        with load(path, "native") as model:
            prompts = [model.tokenizer.encode(text) for text in TEXTS]
        alone = greedy_passes(package, whole, prompts)
        head = native.load_head(package, options)
        on_gpu = [torch.load_blocks(package, range(index, index + 1), options) for index in blocks]
        for split, hidden in enumerate(hidden_after(on_gpu, alone)):
            for streamed in split_patterns(split, len(blocks)):
                rest = rest_of(package, split, hidden, alone, replace(options, streamed_blocks=streamed))
                yield compared([head.logits(rows) for rows in rest], alone)


def compared(logits: list[Float32], alone: Passes) -> Split:
    tokens = [rows.argmax(1).tolist() for rows in logits]
    found, expected = np.concatenate(logits), np.concatenate(alone.logits)
    truth = log_softmax(expected)
    divergence = (np.exp(truth) * (truth - log_softmax(found))).sum(1).mean()
    return Split(tokens == alone.tokens, difference(found, expected), float(divergence))


def test_every_split_of_smollm2(smollm2_packages: dict[int, Path]) -> None:
    """Weights of 16 bits: the same greedy tokens, and logits that differ by a two thousandth."""
    splits = list(splits_of_smollm2(smollm2_packages[16], "float16"))
    assert len(splits) == 31 + 3
    assert all(split.same_tokens for split in splits)
    assert max(split.difference for split in splits) < 1e-3


@pytest.mark.parametrize(("kv", "tolerance"), [("float16", QUANTIZED), ("int8", 2 * QUANTIZED)])
def test_every_split_of_smollm2_in_int4(
    smollm2_packages: dict[int, Path], kv: KVType, tolerance: float
) -> None:
    """Activations are int8 in the native engine and not in PyTorch. A token that is hardly more probable
    than another may change place with it, which with int8 caches happens in these texts too."""
    splits = list(splits_of_smollm2(smollm2_packages[4], kv))
    assert kv == "int8" or all(split.same_tokens for split in splits)
    assert max(split.difference for split in splits) < tolerance
    assert max(split.divergence for split in splits) < 5e-3


TEXTS = ("The capital of France is", "One, two, three, four,")


def split_patterns(split: int, blocks: int) -> list[frozenset[int]]:
    """The blocks behind a split that are read from disk: none; for some splits every third one too."""
    return [frozenset(), frozenset(range(split, blocks, 3))] if split % 10 == 4 else [frozenset()]


def rest_of(
    package: Package, split: int, hidden: list[Float32], passes: Passes, options: EngineOptions
) -> Iterator[Float32]:
    """The last rows after all blocks, for each pass."""
    blocks = range(split, package.spec.num_blocks)
    stages = [NativeEngine().load_blocks(package, blocks, options)] if blocks else []
    for stage, sequence in itertools.product(stages, range(2)):
        stage.open(sequence)
    for rows, (_, batch) in zip(hidden, passes.inputs, strict=True):
        for stage in stages:
            rows = stage.forward(rows, batch)
        yield rows[last_rows(batch)]
    for stage in stages:
        stage.release()


@pytest.mark.parametrize("text", ["ram:0-9,gpu:10-19,ram:20-29", "gpu:0-5,disk:6,ram:7-20,disk:21,gpu:22-29"])
def test_smollm2_with_the_gpu_in_the_midst(smollm2_packages: dict[int, Path], text: str) -> None:
    path = smollm2_packages[16]
    with load(path, "native") as model, load(path, placement=text, backend="cpu") as split:
        prompt = model.tokenizer.encode(TEXTS[0])
        expected = list(model.generate(prompt, 8))
        assert list(split.generate(prompt, 8)) == expected
