"""What all endpoints of a server share.

Enters: an asynchronous model and the server's settings. Leaves: one object that endpoints are made with.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from pocketglm.errors import InputError
from pocketglm.generate.template import TEMPLATE_FILE
from pocketglm.serve.async_model import AsyncModel
from pocketglm.serve.grammar import GrammarCompiler
from pocketglm.serve.http_errors import ApiError
from pocketglm.serve.metrics import Metrics
from pocketglm.serve.settings import ServerSettings
from pocketglm.serve.tool_calls import ToolFormat
from pocketglm.serve.tool_formats import tool_format


@dataclass
class Service:
    """The model, the settings, and what is counted."""

    engine: AsyncModel
    settings: ServerSettings
    metrics: Metrics = field(init=False)
    grammars: GrammarCompiler | None = field(init=False)
    tool_format: ToolFormat | InputError = field(init=False)
    fingerprint: str = field(init=False)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.engine)
        model = self.engine.model
        self.grammars = (
            GrammarCompiler(model.tokenizer, model.spec.vocab_size, model.defaults.end_tokens)
            if model.has_tokenizer
            else None
        )
        try:
            template = model.package.text(TEMPLATE_FILE) if model.has_template else None
            self.tool_format = tool_format(template)
        except InputError as error:
            self.tool_format = error
        self.fingerprint = f"fp_{model.package.fingerprint[:12]}"

    def new_id(self, kind: str) -> str:
        return f"{kind}-{secrets.token_hex(12)}"

    def now(self) -> int:
        """Seconds since 1970, as OpenAI's objects have them."""
        return int(time.time())

    def check_model(self, name: str | None) -> None:
        """A request that names a model names this one."""
        served = self.settings.model_name
        if name is not None and name != served:
            raise ApiError(
                404,
                f"there is no model {name[:80]!r} here; this server has {served!r}",
                param="model",
                code="model_not_found",
            )

    def compiler(self) -> GrammarCompiler:
        """Raises `ApiError` for a model that only knows token ids."""
        if self.grammars is None:
            raise ApiError(400, "constrained answers need a tokenizer, and this package has none")
        return self.grammars

    def tools(self) -> ToolFormat:
        """How the model writes tool calls. Raises `ApiError` where it has no tools."""
        if isinstance(self.tool_format, InputError):
            raise ApiError(
                400,
                f"{self.tool_format.message} ({self.tool_format.hint})",
                param="tools",
                code="unsupported",
            )
        return self.tool_format
