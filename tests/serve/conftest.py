"""Servers shared by the tests of this stage: a tiny model with random weights, and SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generate.tiny_models import CAUSAL, END, PREFIXED, write_tiny
from pocketglm.convert import ConvertSettings, convert
from pocketglm.quantize.formats import WeightFormat
from pocketglm.quantize.settings import QuantizeSettings, head_format
from serve.running import Running, running

ENDS = {"do_sample": False, "eos_token_ids": [END]}
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou may call functions. Tools: {{ tools | tojson }}\n"
    'Answer with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def causal_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("serve") / "causal", CAUSAL, generation=ENDS)


@pytest.fixture(scope="session")
def prefixed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ChatGLM-6B-like model: two-dimensional positions and a bidirectional context."""
    return write_tiny(tmp_path_factory.mktemp("serve") / "prefixed", PREFIXED, generation=ENDS)


@pytest.fixture(scope="module")
def server(causal_path: Path) -> Iterator[Running]:
    with running(causal_path) as started:
        yield started


@pytest.fixture(scope="session")
def smollm2_package(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("smollm2") / "package"
    blocks = WeightFormat(bits=4, group=32)
    convert(str(smollm2), target, ConvertSettings(QuantizeSettings(blocks, head_format(blocks))))
    return target


@pytest.fixture(scope="session")
def smollm2_server(smollm2_package: Path) -> Iterator[Running]:
    with running(smollm2_package, engine="native", load_settings={"threads": 2, "context": 2048}) as started:
        yield started


@pytest.fixture(scope="session")
def tool_server(smollm2_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """SmolLM2 with a chat template that takes tools the way Qwen's and Hermes's do."""
    import shutil

    from generate.tiny_models import add_files

    folder = Path(shutil.copytree(smollm2_package, tmp_path_factory.mktemp("tools") / "package"))
    add_files(folder, {"chat_template.jinja": TOOL_TEMPLATE})
    with running(folder, engine="native", load_settings={"threads": 2, "context": 2048}) as started:
        yield started
