"""ChatGLM-6B and ChatGLM2-6B against logits made with the upstream implementations.

`golden.npz` holds the logits of a prompt, of 12 cached greedy steps, and the greedy ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.checkpoints import TOLERANCES, float32_runner, greedy, largest_difference


@pytest.mark.parametrize("engine", TOLERANCES)
@pytest.mark.parametrize("name", ["chatglm-v1-tiny", "chatglm2-tiny"])
def test_golden_logits(golden: Path, tmp_path: Path, name: str, engine: str) -> None:
    expected = np.load(golden / name / "golden.npz")
    prompt_ids, greedy_ids = expected["prompt_ids"].tolist(), expected["greedy_ids"].tolist()
    with float32_runner(golden / name, tmp_path / "package", engine) as runner:
        assert largest_difference(runner.run(prompt_ids), expected["prompt_logits"]) < TOLERANCES[engine]
        for token, logits in zip(greedy_ids, expected["step_logits"], strict=False):
            assert largest_difference(runner.feed({0: [token]})[0][0], logits) < TOLERANCES[engine]
        assert greedy(runner, prompt_ids, len(greedy_ids), sequence=1) == greedy_ids
        # The whole text at once gives what the prompt and the steps gave
        whole = runner.run(prompt_ids + greedy_ids[:-1], sequence=2)
        assert largest_difference(whole[len(prompt_ids) :], expected["step_logits"]) < TOLERANCES[engine]


@pytest.mark.parametrize("engine", TOLERANCES)
def test_stories260k_tells_its_story(shared_data: Path, tmp_path: Path, engine: str) -> None:
    """A real trained model: stories260K, whose greedy text was made with its author's program."""
    import json

    source = shared_data / "stories260k"
    ids = json.loads((source / "greedy_ids.json").read_text())
    with float32_runner(source, tmp_path / "package", engine) as runner:
        assert ids[:1] + greedy(runner, ids[:1], len(ids) - 1) == ids
