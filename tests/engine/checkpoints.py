"""From a checkpoint to an opened float32 package, for comparing an engine with the original model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.runner import Runner
from engine.tiny_packages import write_package
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.table import TensorRule
from pocketglm.checkpoint.opening import open_checkpoint
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.engine.contract import EngineOptions, Float32
from pocketglm.engine.registry import get_engine
from pocketglm.package.reader import Package
from pocketglm.quantize.formats import WeightFormat


@contextmanager
def float32_runner(source: Path, package: Path, engine: str = "reference") -> Iterator[Runner]:
    """A runner of the checkpoint at `source`, its weights stored as float32 in the new `package`."""
    with open_checkpoint(source) as checkpoint:
        architecture = model_from_config(checkpoint)
        table = architecture.table
        tensors = {rule.name: read_rule(checkpoint, rule) for rule in (table.embedding, *table.head)}
        for index, rules in enumerate(table.blocks):
            tensors |= {f"block.{index}.{rule.name}": read_rule(checkpoint, rule) for rule in rules}
    write_package(package, architecture.spec, tensors, WeightFormat(32))
    with Package.open(package) as opened:
        runner = Runner(get_engine(engine), opened, options=EngineOptions())
        yield runner
        runner.release()


def read_rule(checkpoint: Checkpoint, rule: TensorRule) -> Float32:
    """A canonical tensor, put together from the checkpoint's rows."""
    return np.concatenate([checkpoint.read(p.source, p.start, p.count) for p in rule.pieces])


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
