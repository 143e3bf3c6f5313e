"""Optional tidying of an answer's text, as ChatGLM-6B's own chat function does it.

Enters: a whole answer (not a piece of a stream). Leaves: the text without blanks at its ends, with the
training date filled in, and with full-width punctuation next to Chinese characters. It changes what the
model said, so nothing here runs unless it is asked for.
"""

from __future__ import annotations

import re

TRAINING_DATE = ("[[训练时间]]", "2023年")
"""What ChatGLM-6B writes for the date of its training, and what upstream shows instead."""

FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}

_HAN = r"[\u4e00-\u9fff]"
_PUNCTUATION = re.compile(rf"(?<={_HAN})[,!:;?]|[,!:;?](?={_HAN})")


def tidy_answer(text: str) -> str:
    """Upstream's clean-up of a finished ChatGLM-6B answer."""
    text = text.strip().replace(*TRAINING_DATE)
    return _PUNCTUATION.sub(lambda match: FULL_WIDTH[match[0]], text)
