"""MNN's Python package, spoken to in one place: its version, its backends, loading and running graphs.

Enters: names of backends, paths of graphs and weight files. Leaves: modules that run, or an error; MNN
itself only prints a line and goes on with something else. Nothing here opens a connection or a process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.engine.contract import Float32
from pocketglm.engine.mnn.native_output import captured_output
from pocketglm.errors import EngineError, MissingExtraError

INSTALL_HINT = "install it with `pip install 'pocketglm[mnn]'`"

BACKENDS = {"cpu": 0, "metal": 1, "cuda": 2, "opencl": 3, "nn": 5, "opengl": 6, "vulkan": 7}
"""Backend name -> MNN's number for it (`MNNForwardType`)."""

PRECISION_HIGH = 1
MEMORY_LOW = 2
"""Weights stay quantized and are dequantized inside the matrix product, its other side in int8. Only the
number has this effect; MNN ignores the word."""

DYNAMIC_QUANTIZATION = 5
SCALE_PER_GROUP = 2
"""MNN's hint `DYNAMIC_QUANT_OPTIONS` and its value for one activation scale a weight group, not a row.
Trained models have a few activations far above the others, which a scale for the whole row pays for: on
SmolLM2-135M with int4 groups of 64 the KL divergence from float32 activations falls from 0.038 to 0.002
in a prompt and from 0.022 to 0.004 while decoding, at 10 % and 30 % of the time and 11 % of the memory.
Weights with one group a row gain nothing. MNN-LLM calls the same setting `dynamic_option`."""

NO_BACKEND = re.compile(r"Can't Find type=\d+ backend")


@cache
def mnn() -> Any:
    """The MNN package, imported without its greeting. Raises `MissingExtraError`."""
    try:
        with captured_output():
            import MNN
            import MNN.expr
            import MNN.nn
    except ImportError as error:
        raise MissingExtraError(f"MNN cannot be imported ({error})", hint=INSTALL_HINT) from error
    return MNN


def mnn_version() -> str:
    """Version of the installed MNN, such as 3.6.1."""
    return str(mnn().version())


@cache
def available_backends() -> tuple[str, ...]:
    """Names of the backends that the installed MNN has."""
    found = []
    for name in BACKENDS:
        try:
            Runtime(name, threads=1)
        except EngineError:
            continue
        found.append(name)
    return tuple(found)


class Runtime:
    """One backend with its threads. Modules of the same backend share it.

    `grouped` tells that all quantized weights have groups smaller than a row.
    """

    def __init__(self, backend: str, threads: int, grouped: bool = False) -> None:
        if backend not in BACKENDS:
            raise EngineError(
                f"MNN has no backend called {backend!r}", hint=f"choose one of: {', '.join(BACKENDS)}"
            )
        settings = {
            "backend": BACKENDS[backend],
            "precision": PRECISION_HIGH,
            "memory": MEMORY_LOW,
            "power": 0,
            "numThread": threads,
        }
        nn = mnn().nn
        with captured_output() as printed:
            self._manager = nn.create_runtime_manager((settings,))
        if self._manager is None or NO_BACKEND.search(printed.text):
            raise EngineError(
                f"the installed MNN {mnn_version()} has no {backend} backend",
                hint="place the blocks on cpu, or install an MNN that was built with this backend",
            )
        if grouped:
            self._manager.set_hint(DYNAMIC_QUANTIZATION, SCALE_PER_GROUP)

    def load(self, graph: Path, weights: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        """Load a graph with its weight file, which must be there whole: MNN does not check it.

        The weights are read and rearranged now, so that the file is not needed afterwards.
        """
        problem = None
        with captured_output() as printed:
            try:
                self._manager.set_external(str(weights))
                module = mnn().nn.load_module_from_file(
                    str(graph),
                    list(inputs),
                    list(outputs),
                    runtime_manager=self._manager,
                    shape_mutable=True,
                    rearrange=True,
                )
            except (SystemError, RuntimeError) as error:  # how the binding reports a null module
                problem = error
        if problem is not None:
            said = "; ".join(printed.text.split("\n")).strip("; ") or "MNN gave no reason"
            raise EngineError(f"MNN cannot load the graph ({said})", where=graph) from problem
        return Graph(module, graph)


class Graph:
    """A loaded graph."""

    def __init__(self, module: Any, path: Path) -> None:
        self._module = module
        self._path = path

    def __call__(self, *inputs: Any) -> list[Any]:
        """Run on MNN variables. Returns MNN variables, which the next graph takes as they are."""
        try:
            outputs = self._module.onForward(list(inputs))
        except (SystemError, RuntimeError) as error:
            raise EngineError(f"MNN failed to run the graph ({error})", where=self._path) from error
        if not outputs:
            raise EngineError(
                "MNN failed to run the graph: too little memory, or a damaged graph", where=self._path
            )
        return list(outputs)


def to_var(array: NDArray[Any]) -> Any:
    """An MNN variable with a copy of a float32 or int32 array."""
    expr = mnn().expr
    kind = expr.int if array.dtype == np.int32 else expr.float
    variable = expr.placeholder(list(array.shape), expr.NCHW, kind)
    variable.write(np.ascontiguousarray(array))
    return variable


def view(variable: Any) -> Float32:
    """The memory of an MNN variable as an array. It dies with the variable: copy what is to stay."""
    array: Float32 = variable.read()
    return array
