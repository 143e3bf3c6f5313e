"""Chat templates of models that bring none, written in the dialect of the transformers library.

A rendered template is a whole prompt with its [gMASK] and <sop>, ready for a tokenizer that adds nothing.
"""

from __future__ import annotations

from importlib import resources


def load_template(name: str) -> str:
    """Text of `name`.jinja."""
    return resources.files(__name__).joinpath(f"{name}.jinja").read_text(encoding="utf-8")
