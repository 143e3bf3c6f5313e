"""The chat template of a checkpoint.

Enters: a checkpoint and its architecture. Leaves: the text of `chat_template.jinja`, complete in itself,
or None where there is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pocketglm.architecture.model import Architecture
from pocketglm.checkpoint.source import Checkpoint
from pocketglm.convert.tokenizer.byte_level import read_json
from pocketglm.errors import CheckpointError

TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Variables that templates expect to hold a token's text."""


def chat_template_of(checkpoint: Checkpoint, architecture: Architecture) -> str | None:
    """The chat template: the family's own, else the checkpoint's, else None.

    A template that uses `bos_token` and the like gets them set in its first line, so that it needs no
    other file.
    """
    if architecture.template is not None:
        return architecture.template
    if checkpoint.format == "gguf":
        template = checkpoint.metadata.get("tokenizer.chat_template")
        return None if template is None else _complete(str(template), _gguf_tokens(checkpoint.metadata))
    settings = read_json(checkpoint.directory / "tokenizer_config.json")
    settings = settings if isinstance(settings, dict) else {}
    path = checkpoint.directory / "chat_template.jinja"
    if not path.is_file():
        template = _in_settings(settings, checkpoint)
        return None if template is None else _complete(template, settings)
    try:
        return _complete(path.read_text(encoding="utf-8"), settings)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=path) from None


def _in_settings(settings: Mapping[str, Any], checkpoint: Checkpoint) -> str | None:
    """`chat_template` of tokenizer_config.json; of several named ones, the default."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {
            str(entry.get("name")): entry.get("template") for entry in template if isinstance(entry, dict)
        }
        template = named.get("default", next(iter(named.values()), None))
    if template is not None and not isinstance(template, str):
        raise CheckpointError(
            f"chat_template is {json.dumps(template)[:60]}, expected text",
            where=checkpoint.directory / "tokenizer_config.json",
        )
    return template


def _gguf_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    numbers = {name: metadata.get(f"tokenizer.ggml.{name}_id") for name in TOKEN_NAMES}
    return {
        name: str(tokens[int(number)])
        for name, number in numbers.items()
        if number is not None and 0 <= int(number) < len(tokens)
    }


def _complete(template: str, tokens: Mapping[str, Any]) -> str:
    """Set the token variables that the template uses. The line break after a tag is not rendered."""
    lines = []
    for name in TOKEN_NAMES:
        entry = tokens.get(name)
        text = entry.get("content") if isinstance(entry, Mapping) else entry
        if isinstance(text, str) and re.search(rf"\b{name}\b", template):
            lines.append(f"{{% set {name} = {_quoted(text)} %}}\n")
    return "".join(lines) + template


def _quoted(text: str) -> str:
    """A Jinja string literal; Jinja reads Python's escapes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
