"""The page's tokenizer and templates against Python's: the same ids, texts and prompts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from convert.tokenizer.vocabularies import document
from generate.test_template import tokenizer_json
from pocketglm.architecture.chatglm3 import TOKENIZER as CHATGLM3
from pocketglm.architecture.registry import model_from_config
from pocketglm.architecture.templates import load_template
from pocketglm.checkpoint import open_checkpoint
from pocketglm.convert.demo_chatglm import write_demo_checkpoint
from pocketglm.convert.tokenizer import convert_tokenizer
from pocketglm.convert.tokenizer.sentencepiece_model import Surroundings
from web.phone.parity import (
    GLM_TOKENS,
    LARGE_BYTES,
    TEXTS,
    all_templates,
    large_text,
    small_tokenizers,
    template_case,
    tokenizer_case,
    write_cases,
)

WEB = Path(__file__).parents[3] / "web"
CHATGLM_SPECIAL = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|user|>",
    "<|assistant|>",
    "<n>",
    "</s>",
)
SMOLLM2_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>")


def compare(tmp_path: Path, tokenizers: Sequence[Any] = (), templates: Sequence[Any] = ()) -> None:
    """Runs the page's own code in Node on the cases; its report is the failure's text."""
    if not (WEB / "node_modules" / "vitest").is_dir():
        pytest.skip("vitest is not installed; `make web-packages` does it")
    cases = tmp_path / "cases.json"
    write_cases(cases, tokenizers, templates)
    command = [sys.executable, WEB / "build.py", "npm", WEB, "test", "--", "tests/phone/parity.test.ts"]
    environment = {**os.environ, "POCKETGLM_PARITY": str(cases), "NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert f"Tests  {len(tokenizers) + len(templates)} passed" in done.stdout


def with_large(name: str, text: str, special: Sequence[str]) -> dict[str, Any]:
    """A tokenizer's case on the usual texts and on a large one."""
    large = large_text(special)
    assert len(large.encode()) >= LARGE_BYTES
    case = tokenizer_case(name, text, [*TEXTS, large])
    assert len(set(case["special"][-1])) > 300  # the text reaches much of the vocabulary
    return case


def converted(path: Path) -> str:
    """`tokenizer.json` of a checkpoint."""
    with open_checkpoint(path) as checkpoint:
        text = convert_tokenizer(checkpoint, model_from_config(checkpoint))
    assert text is not None
    return text


def chatglm3(shared_data: Path) -> str:
    around = Surroundings(appended=CHATGLM3.appended_tokens, prefix=CHATGLM3.prefix_tokens)
    return document(shared_data / "chatglm3-tokenizer.model", around)


def test_every_kind_that_the_converter_writes(tmp_path: Path) -> None:
    found = small_tokenizers(tmp_path)
    compare(tmp_path, [tokenizer_case(name, text) for name, text in found.items()])


def test_smollm2(smollm2: Path, tmp_path: Path) -> None:
    text = converted(smollm2)
    with open_checkpoint(smollm2) as checkpoint:
        source = checkpoint.metadata["tokenizer.chat_template"]
    compare(tmp_path, [with_large("smollm2", text, SMOLLM2_SPECIAL)], [template_case("own", source, text)])


def test_chatglm3(shared_data: Path, tmp_path: Path) -> None:
    text = chatglm3(shared_data)
    templates = [template_case(name, load_template(name), text) for name in ("chatglm3", "glm4_remote")]
    compare(tmp_path, [with_large("chatglm3", text, CHATGLM_SPECIAL)], templates)


def test_chatglm_6b_in_small(tmp_path: Path) -> None:
    text = converted(write_demo_checkpoint(tmp_path / "demo"))
    templates = [template_case(name, load_template(name), text) for name in ("chatglm", "chatglm2")]
    compare(tmp_path, [with_large("chatglm", text, CHATGLM_SPECIAL)], templates)


def test_templates(tmp_path: Path) -> None:
    compare(tmp_path, templates=all_templates(tokenizer_json([*GLM_TOKENS, "<|im_end|>"])))
