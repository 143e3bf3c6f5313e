"""What a user may choose about a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pocketglm.quantize.settings import QuantizeSettings


@dataclass(frozen=True)
class ConvertSettings:
    """Settings of one conversion. `report` makes the fidelity report on the way."""

    quantize: QuantizeSettings = field(default_factory=QuantizeSettings)
    keep_tokens: Path | None = None
    resume: bool = False
    overwrite: bool = False
    report: bool = True
    threads: int = 2
