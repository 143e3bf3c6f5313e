from __future__ import annotations

from typing import Any

import pytest

from pocketglm.architecture.config import Config
from pocketglm.architecture.sliding_window import FULL, SLIDING, qwen_window, read_window
from pocketglm.errors import CheckpointError, UnsupportedModelError

NONE = {"sliding_window": None, "sliding_window_start": 0}


def config(**values: Any) -> Config:
    return Config({"num_hidden_layers": 4, **values}, "config.json")


def test_a_window_on_all_blocks() -> None:
    assert read_window(config(sliding_window=8), 0) == {"sliding_window": 8, "sliding_window_start": 0}
    assert read_window(config(sliding_window=None), 0) == read_window(config(), 0) == NONE


def test_qwen_windows_are_off_unless_asked_for() -> None:
    settings: dict[str, Any] = {"sliding_window": 8, "max_window_layers": 2}
    assert qwen_window(config(**settings)) == NONE
    assert qwen_window(config(**settings, use_sliding_window=False, layer_types=[FULL] * 4)) == NONE
    expected = {"sliding_window": 8, "sliding_window_start": 2}
    assert qwen_window(config(**settings, use_sliding_window=True)) == expected
    kinds = [FULL, FULL, SLIDING, SLIDING]
    assert qwen_window(config(**settings, use_sliding_window=True, layer_types=kinds)) == expected


def test_no_block_reaches_the_window() -> None:
    assert qwen_window(config(sliding_window=8, use_sliding_window=True, max_window_layers=4)) == NONE
    assert qwen_window(config(sliding_window=8, use_sliding_window=True)) == NONE


def test_layer_types_come_before_max_window_layers() -> None:
    kinds = [FULL, SLIDING, SLIDING, SLIDING]
    window = qwen_window(
        config(sliding_window=8, use_sliding_window=True, max_window_layers=3, layer_types=kinds)
    )
    assert window["sliding_window_start"] == 1


def test_alternating_windows_are_refused() -> None:
    kinds = [FULL, SLIDING, FULL, SLIDING]
    with pytest.raises(UnsupportedModelError, match="layer_types"):
        qwen_window(config(sliding_window=8, use_sliding_window=True, layer_types=kinds))


def test_contradiction_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="layer_types"):
        qwen_window(config(sliding_window=8, use_sliding_window=False, layer_types=[SLIDING] * 4))


@pytest.mark.parametrize("kinds", [[FULL] * 3, "full_attention", {}])
def test_malformed_layer_types(kinds: object) -> None:
    with pytest.raises(CheckpointError, match="a list of 4 names"):
        qwen_window(config(sliding_window=8, use_sliding_window=True, layer_types=kinds))
