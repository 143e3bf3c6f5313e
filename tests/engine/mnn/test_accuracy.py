"""How far int8 activations carry the mnn engine from float32 ones on the same quantized weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.mnn.graphs import add_graphs, need_mnn
from engine.runner import Runner
from pocketglm.convert import ConvertSettings, convert
from pocketglm.engine.contract import EngineOptions, Float32
from pocketglm.engine.registry import get_engine
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings

QUANTIZED = {
    "int8": WeightFormat(8, 64),
    "int8-row-symmetric": WeightFormat(8, 0, symmetric=True),
    "int4": WeightFormat(4, 64),
    "int4-g32": WeightFormat(4, 32),
}


def both_engines(
    source: Path, package: Path, weight_format: WeightFormat, ids: list[int], steps: int
) -> list[Float32]:
    """Logits of the reference engine, of mnn in one pass, and of mnn with the last `steps` one by one."""
    need_mnn()
    convert(source, package, ConvertSettings(QuantizeSettings(weight_format, weight_format), report=False))
    add_graphs(package)
    with Package.open(package) as opened:
        options = EngineOptions(threads=1)
        reference, mnn = (Runner(get_engine(n), opened, options=options) for n in ("reference", "mnn"))
        chunks = range(len(ids) - steps, len(ids))
        return [reference.run(ids), mnn.run(ids), mnn.run(ids, sequence=1, chunks=chunks)]


def kl_divergence(expected: Float32, found: Float32) -> float:
    """Mean KL(softmax(expected) || softmax(found)) of the rows, in nats."""
    wide = [array.astype(np.float64) for array in (expected, found)]
    p, q = (a - np.log(np.exp(a - a.max(-1, keepdims=True)).sum(-1, keepdims=True)) for a in wide)
    p, q = p - expected.max(-1, keepdims=True), q - found.max(-1, keepdims=True)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("name", QUANTIZED)
def test_stories260k(shared_data: Path, tmp_path: Path, name: str) -> None:
    import json

    source = shared_data / "stories260k"
    ids = json.loads((source / "greedy_ids.json").read_text())
    expected, *found = both_engines(source, tmp_path / "package", QUANTIZED[name], ids, len(ids) // 2)
    check(expected, found)


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("model", ["chatglm-v1-tiny", "chatglm2-tiny"])
def test_golden_models(golden: Path, tmp_path: Path, model: str, name: str) -> None:
    fixture = np.load(golden / model / "golden.npz")
    prompt, steps = fixture["prompt_ids"].tolist(), fixture["greedy_ids"].tolist()
    weight_format, package = QUANTIZED[name], tmp_path / "package"
    expected, *found = both_engines(golden / model, package, weight_format, prompt + steps, len(steps))
    check(expected, found)


def check(expected: Float32, found: list[Float32]) -> None:
    for logits in found:
        assert kl_divergence(expected, logits) < 2e-3
        assert (expected.argmax(-1) == logits.argmax(-1)).mean() >= 0.9
