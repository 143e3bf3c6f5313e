"""From the tokenizer files of every supported family to one `tokenizer.json`."""

from pocketglm.convert.tokenizer.chat_template import chat_template_of
from pocketglm.convert.tokenizer.slim import close_kept_tokens, read_kept_tokens
from pocketglm.convert.tokenizer.source import convert_tokenizer

__all__ = ["chat_template_of", "close_kept_tokens", "convert_tokenizer", "read_kept_tokens"]
