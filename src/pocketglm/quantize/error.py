"""How far stored weights lie from the original: figures summed over chunks of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketglm.errors import InputError
from pocketglm.quantize import native


@dataclass
class ErrorFigures:
    """Sums over any number of chunks. The figures do not depend on the machine, given the chunks."""

    count: int = 0
    squared_error: float = 0.0
    squared_norm: float = 0.0  # of the original
    squared_stored: float = 0.0
    dot: float = 0.0
    max_abs_error: float = 0.0

    def add(self, original: NDArray[np.float32], stored: NDArray[np.float32]) -> None:
        """Count rows `stored` [rows, inputs] as standing for `original`."""
        if original.shape != stored.shape or original.ndim != 2:
            raise InputError(
                f"original has shape {list(original.shape)} and stored {list(stored.shape)}, "
                "expected the same [rows, inputs]"
            )
        error, norm, norm_stored, dot, largest = native.compare(
            np.ascontiguousarray(original, np.float32), np.ascontiguousarray(stored, np.float32)
        )
        self.merge(ErrorFigures(original.size, error, norm, norm_stored, dot, largest))

    def merge(self, other: ErrorFigures) -> None:
        """Count what `other` counted."""
        self.count += other.count
        self.squared_error += other.squared_error
        self.squared_norm += other.squared_norm
        self.squared_stored += other.squared_stored
        self.dot += other.dot
        self.max_abs_error = max(self.max_abs_error, other.max_abs_error)

    @property
    def relative(self) -> float:
        """Root of squared error over squared norm; infinite for a wrong copy of zeros."""
        if self.squared_norm == 0:
            return 0.0 if self.squared_error == 0 else math.inf
        return math.sqrt(self.squared_error / self.squared_norm)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two; 1 if both are zero, 0 if one is."""
        lengths = math.sqrt(self.squared_norm * self.squared_stored)
        if lengths == 0:
            return 1.0 if self.squared_norm == self.squared_stored else 0.0
        return max(-1.0, min(1.0, self.dot / lengths))

    def to_dict(self) -> dict[str, float]:
        """The figures a report shows."""
        return {"relative": self.relative, "cosine": self.cosine, "max_abs": self.max_abs_error}
