"""The seam for quantization methods: what turns rows into stored rows of a format.

`ScaleSearch` needs nothing but the weights. A calibrated method (GPTQ, AWQ and their kind) is another
`Quantizer`: it is made with what calibration measured of one layer and gives rows of the same format,
so package, engines and reports do not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.rows import QuantizedRows, quantize_rows


class Quantizer(Protocol):
    """Quantizes rows of one linear layer. Called from several threads at once."""

    def quantize(
        self, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
    ) -> QuantizedRows:
        """Stored form of `rows` [rows, inputs]; `importance` [inputs] weights the columns' errors."""
        ...


@dataclass(frozen=True)
class ScaleSearch:
    """Each group on its own: least squared error, or round-to-nearest where `format.search` is off."""

    format: WeightFormat

    def quantize(
        self, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
    ) -> QuantizedRows:
        return quantize_rows(rows, self.format, importance)


QuantizerFor = Callable[[str, WeightFormat], Quantizer]
"""(layer name in its weight file such as `mlp.down`, format) -> what quantizes that layer."""


def scale_search(name: str, weight_format: WeightFormat) -> Quantizer:
    """The default `QuantizerFor`: the same method for every layer."""
    return ScaleSearch(weight_format)
