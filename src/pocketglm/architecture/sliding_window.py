"""Which blocks see only a window of the latest positions.

Enters: the settings of the transformers library. Leaves: the two window fields of a `ModelSpec`.
"""

from __future__ import annotations

from typing import TypedDict

from pocketglm.architecture.config import Config

SLIDING, FULL = "sliding_attention", "full_attention"


class Window(TypedDict):
    sliding_window: int | None
    sliding_window_start: int


def read_window(config: Config, first: int) -> Window:
    """The window of blocks `first` and up, unless `layer_types` names the blocks one by one."""
    blocks = config.integer("num_hidden_layers")
    kinds = config.values.get("layer_types")
    if kinds is not None:
        first = _first_sliding(config, kinds, blocks)
    if first >= blocks:
        return Window(sliding_window=None, sliding_window_start=0)
    size = config.integer("sliding_window") if kinds is not None or "sliding_window" in config else None
    return Window(sliding_window=size, sliding_window_start=first if size is not None else 0)


def qwen_window(config: Config) -> Window:
    """Qwen's rule: off unless `use_sliding_window`; the first `max_window_layers` blocks see everything."""
    if config.flag("use_sliding_window", False):
        return read_window(config, config.integer("max_window_layers", 28))
    if SLIDING in (config.values.get("layer_types") or ()):
        raise config.unsupported("layer_types", hint="it contradicts use_sliding_window: false")
    return Window(sliding_window=None, sliding_window_start=0)


def _first_sliding(config: Config, kinds: object, blocks: int) -> int:
    """The first windowed block, where all later ones have the window too."""
    if not isinstance(kinds, list) or len(kinds) != blocks:
        raise config.malformed("layer_types", f"a list of {blocks} names")
    first = kinds.index(SLIDING) if SLIDING in kinds else blocks
    if kinds != [FULL] * first + [SLIDING] * (blocks - first):
        raise config.unsupported("layer_types", hint="windowed blocks must follow all others")
    return first
