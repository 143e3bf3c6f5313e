"""From a checkpoint to an opened float32 package, for comparing an engine with the original model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.mnn.graphs import add_graphs, need_mnn
from engine.runner import Runner
from pocketglm.convert import ConvertSettings, convert
from pocketglm.engine.contract import EngineOptions, Float32
from pocketglm.engine.registry import get_engine
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings

TOLERANCES = {"reference": 1e-4, "native": 1e-4, "torch": 1e-4, "mnn": 1e-4}
"""Engine -> largest difference of a logit from the original model's, computed in float32."""


def convert_float32(source: Path, package: Path) -> Path:
    """The checkpoint at `source`, converted at float32 to the new `package`."""
    settings = ConvertSettings(QuantizeSettings(WeightFormat(32), WeightFormat(32)), report=False)
    return convert(source, package, settings)


@contextmanager
def float32_runner(source: Path, package: Path, engine: str = "reference") -> Iterator[Runner]:
    """A runner of the checkpoint at `source`, converted at float32 to the new `package`."""
    if engine == "mnn":
        need_mnn()
    convert_float32(source, package)
    if engine == "mnn":
        add_graphs(package)
    with Package.open(package) as opened:
        # Tiny matrices: a second thread would only be waited for
        runner = Runner(get_engine(engine), opened, options=EngineOptions(threads=1, kv="float32"))
        yield runner
        runner.release()


def greedy(runner: Runner, prompt_ids: Sequence[int], count: int, sequence: int = 0) -> list[int]:
    """The `count` most likely tokens after the prompt, one by one."""
    logits = runner.run(prompt_ids, sequence)
    ids = [int(logits[-1].argmax())]
    while len(ids) < count:
        ids.append(int(runner.feed({sequence: ids[-1:]})[sequence][-1].argmax()))
    return ids


def largest_difference(found: Float32, expected: Float32) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())
