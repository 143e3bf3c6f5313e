"""How a model samples unless told otherwise, and which tokens end its answer.

Enters: a package's `generation.json`, untrusted. Leaves: checked settings, or `PackageError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketglm.errors import InputError, PackageError
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.package.reader import Package

GENERATION_FILE = "generation.json"


@dataclass(frozen=True)
class AnswerDefaults:
    """`sampling` holds keyword arguments of `SamplingSettings`; `max_length` counts prompt and answer."""

    sampling: Mapping[str, Any] = field(default_factory=dict)
    end_tokens: frozenset[int] = frozenset()

    @classmethod
    def of(cls, package: Package) -> AnswerDefaults:
        """Read and check a package's settings; a package without them samples greedily."""
        data = package.json(GENERATION_FILE)
        if data is None:
            return cls()
        where = package.path / GENERATION_FILE
        ends = data.get("eos_token_ids", [])
        vocab = package.spec.vocab_size
        if not isinstance(ends, list) or not all(type(i) is int and 0 <= i < vocab for i in ends):
            raise PackageError(f"eos_token_ids is {ends!r}, expected token ids below {vocab}", where=where)
        sampling = dict(data)
        if data.get("do_sample") is not True:
            sampling["temperature"] = 0.0
        try:
            SamplingSettings.of(sampling)
        except InputError as error:
            raise PackageError(error.message, where=where) from None
        return cls(sampling, frozenset(ends))

    def settings(self, **overrides: Any) -> SamplingSettings:
        """These settings with `overrides` that are not None on top.

        A limit on new tokens replaces the model's limit on prompt and answer together.
        """
        defaults = dict(self.sampling)
        if overrides.get("max_new_tokens") is not None:
            defaults.pop("max_length", None)
        return SamplingSettings.of(defaults, **overrides)
