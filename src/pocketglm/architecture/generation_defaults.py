"""How a model samples unless told otherwise, and which tokens end its answer.

Enters: the family's documented defaults, `config.json` and `generation_config.json`, in rising order of
precedence. Leaves: a frozen, checked `GenerationDefaults` with token ids of the package.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from pocketglm.architecture.config import Config
from pocketglm.architecture.side_files import read_side_file
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.errors import CheckpointError

NUMBERS = (
    ("temperature", 0.0, math.inf),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", 1e-6, math.inf),
)
"""Name, least and greatest value of each real-valued sampling setting."""


@dataclass(frozen=True)
class GenerationDefaults:
    """Sampling settings. `top_k` 0, `top_p` 1 and `repetition_penalty` 1 switch a filter off.

    `max_length` counts prompt and answer, `max_new_tokens` the answer alone; None means no limit but
    the context.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_length: int | None = None
    max_new_tokens: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    pad_token_id: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for `generation.json`."""
        return {**dataclasses.asdict(self), "eos_token_ids": list(self.eos_token_ids)}


def read_generation(
    checkpoint: Checkpoint, vocab_size: int, defaults: GenerationDefaults, dropped_rows: int = 0
) -> GenerationDefaults:
    """Merge the checkpoint's own settings over `defaults`.

    The family's `eos_token_ids` (already package ids) always stop an answer too. Ids that the
    checkpoint names are lowered by `dropped_rows`; one outside the vocabulary is left out, since no
    sampler can ever produce it. `config.json` counts for token ids only: what it says about sampling
    are often the library's defaults, not the model's.
    """
    main, extra = Config.of(checkpoint), _generation_config(checkpoint)

    def ids(name: str) -> tuple[int, ...]:
        found = (extra if name in extra else main).integers(name)
        return tuple(token - dropped_rows for token in found if 0 <= token - dropped_rows < vocab_size)

    stops = [*ids("eos_token_id"), *(token for token in defaults.eos_token_ids if token < vocab_size)]
    return dataclasses.replace(
        defaults,
        **_sampling(extra),
        eos_token_ids=tuple(dict.fromkeys(stops)),
        bos_token_id=next(iter(ids("bos_token_id")), defaults.bos_token_id),
        pad_token_id=next(iter(ids("pad_token_id")), defaults.pad_token_id),
    )


def _sampling(settings: Config) -> dict[str, Any]:
    """The sampling settings that are present, checked."""
    found: dict[str, Any] = {}
    if "do_sample" in settings:
        found["do_sample"] = settings.flag("do_sample")
    for name, low, high in NUMBERS:
        if name in settings:
            found[name] = _within(settings, name, settings.number(name), low, high)
    for name in ("top_k", "max_length", "max_new_tokens"):
        if name in settings:
            found[name] = _within(settings, name, settings.integer(name), 0, math.inf)
    return found


def _within(settings: Config, name: str, value: Any, low: float, high: float) -> Any:
    if not low <= value <= high:
        raise settings.malformed(name, f"{low:g} to {high:g}")
    return value


def _generation_config(checkpoint: Checkpoint) -> Config:
    """`generation_config.json`, or an empty object where there is none."""
    path = checkpoint.directory / "generation_config.json"
    try:
        values = json.loads(read_side_file(checkpoint, path.name) or "{}")
    except ValueError as error:
        raise CheckpointError(f"cannot be read as JSON: {error}", where=path) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"must be an object, found {type(values).__name__}", where=path)
    return Config(values, path)
