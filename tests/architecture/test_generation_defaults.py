from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from architecture.listed_checkpoint import ListedCheckpoint, write_side_file
from pocketglm.architecture.generation_defaults import GenerationDefaults, read_generation
from pocketglm.errors import CheckpointError

FAMILY = GenerationDefaults(do_sample=True, temperature=0.8, top_p=0.7, eos_token_ids=(5,), pad_token_id=1)


def read(
    directory: Path, config: dict[str, Any], extra: object = None, dropped_rows: int = 0
) -> GenerationDefaults:
    checkpoint = ListedCheckpoint(directory, config, {})
    if extra is not None:
        write_side_file(checkpoint, "generation_config.json", extra)
    return read_generation(checkpoint, 100, FAMILY, dropped_rows)


def test_family_defaults_stand_without_settings(tmp_path: Path) -> None:
    assert read(tmp_path, {}) == FAMILY


def test_generation_config_comes_first(tmp_path: Path) -> None:
    config = {"eos_token_id": 2, "bos_token_id": 3, "temperature": 9.0}
    found = read(tmp_path, config, {"eos_token_id": [7, 8], "temperature": 0.6, "top_k": 20, "top_p": None})
    assert found == GenerationDefaults(
        do_sample=True,
        temperature=0.6,
        top_p=0.7,
        top_k=20,
        eos_token_ids=(7, 8, 5),
        bos_token_id=3,
        pad_token_id=1,
    )


def test_sampling_in_config_json_does_not_count(tmp_path: Path) -> None:
    assert read(tmp_path, {"temperature": 9.0, "do_sample": False, "top_k": 50}) == FAMILY


def test_ids_are_lowered_by_the_dropped_rows(tmp_path: Path) -> None:
    found = read(tmp_path, {"eos_token_id": 25, "pad_token_id": 23, "bos_token_id": 24}, dropped_rows=20)
    assert (found.eos_token_ids, found.pad_token_id, found.bos_token_id) == ((5,), 3, 4)


def test_ids_that_no_sampler_can_produce_are_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, {"eos_token_id": [2, 100, -1], "pad_token_id": -1})
    assert (found.eos_token_ids, found.pad_token_id) == ((2, 5), 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 1.5),
        ("min_p", -1),
        ("repetition_penalty", 0),
        ("top_k", -5),
        ("top_k", 2.5),
        ("max_new_tokens", "many"),
        ("do_sample", "yes"),
        ("eos_token_id", "</s>"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: the setting {name} is "):
        read(tmp_path, {}, {name: value})


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_file_that_is_not_an_object(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=r"generation_config\.json: "):
        read(tmp_path, {}, text)


def test_to_dict_is_json() -> None:
    data = FAMILY.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert GenerationDefaults(**{**data, "eos_token_ids": tuple(data["eos_token_ids"])}) == FAMILY
