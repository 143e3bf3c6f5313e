"""What requests may say: OpenAI's parameters, and a few more.

Enters: JSON. Leaves: checked models, or an error that names the parameter. A parameter that OpenAI defines
and that would change the answer, but is not implemented, is refused by name; one that changes nothing here
(`user`, `store`, ...) is taken. The parameters that OpenAI does not define are documented in
docs/guides/server.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MOST_TOKENS = 1 << 24
"""No context is larger."""

Count = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
TokenId = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Strict(BaseModel):
    """Nothing is converted silently and nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingRequest(Strict):
    """What chat and plain completions have in common."""

    refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Parameters that are not implemented, and the values at which they change nothing."""

    model: str | None = Field(None, max_length=256)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: str | list[str] | None = None
    max_tokens: Count | None = None
    n: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, Bias] | None = None
    user: str | None = Field(None, max_length=1024)

    top_k: int | None = Field(None, ge=0, le=MOST_TOKENS, description="Draw from the K most probable tokens.")
    min_p: float | None = Field(None, ge=0, le=1, description="Least probability relative to the first.")
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    ignore_eos: bool | None = Field(None, description="Go on past the model's end tokens.")
    context_overflow: Literal["error", "sliding_window"] | None = Field(
        None,
        description="What happens where the context is too small: an error (if left out), or the oldest "
        "text is forgotten.",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, neutral in cls.refused.items():
                value = data.get(name)
                if value is not None and value not in neutral:
                    raise PydanticCustomError("unsupported", "{name} is not supported here", {"name": name})
        return data

    @model_validator(mode="after")
    def _options_need_stream(self) -> SamplingRequest:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "stream_options", "stream_options needs stream: true", {"name": "stream_options"}
            )
        return self


class TextPart(Strict):
    type: Literal["text"]
    text: str


class FunctionCall(Strict):
    name: str
    arguments: str


class MessageToolCall(Strict):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


def _only_text(content: Any) -> Any:
    """Refuse images, sounds and files by their name, rather than as a wrong text."""
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise PydanticCustomError(
                "unsupported", "{kind} parts are not supported; only text", {"kind": kind[:40]}
            )
    return content


Content = Annotated[str | list[TextPart], BeforeValidator(_only_text)]


class SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Strict):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Strict):
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None


class ToolMessage(Strict):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Strict):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Strict):
    name: str


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class PlainFormat(Strict):
    type: Literal["text", "json_object"]


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")]


class ChatRequest(SamplingRequest):
    refused = {
        "functions": ([],),
        "function_call": ("none",),
        "audio": (),
        "modalities": (["text"],),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    functions: list[Any] | None = Field(None, description="Refused; use tools.")
    function_call: Any = Field(None, description="Refused; use tool_choice.")
    audio: Any = Field(None, description="Refused.")
    modalities: list[str] | None = Field(None, description="Only text.")
    reasoning_effort: str | None = Field(None, description="Refused.")
    verbosity: str | None = Field(None, description="Refused.")
    web_search_options: Any = Field(None, description="Refused.")
    metadata: dict[str, str] | None = Field(None, description="Not used.")
    store: bool | None = Field(None, description="Not used: nothing is stored.")
    service_tier: str | None = Field(None, description="Not used.")
    prediction: Any = Field(None, description="Not used: a hint for speed alone.")
    safety_identifier: str | None = Field(None, description="Not used.")
    prompt_cache_key: str | None = Field(None, description="Not used: prefixes are found by themselves.")
    prompt_cache_retention: str | None = Field(None, description="Not used.")

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError(
                "top_logprobs", "top_logprobs needs logprobs: true", {"name": "top_logprobs"}
            )
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise PydanticCustomError("tool_choice", "tool_choice needs tools", {"name": "tool_choice"})
        return self


class CompletionRequest(SamplingRequest):
    refused = {"suffix": ("",), "echo": (False,), "best_of": (1,)}

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: int | None = Field(None, ge=0, le=20)
    suffix: str | None = Field(None, description="Refused.")
    echo: bool | None = Field(None, description="Refused.")
    best_of: int | None = Field(None, description="Refused above 1; use n.")


class EmbeddingRequest(Strict):
    model: str | None = Field(None, max_length=256)
    input: str | list[str] | list[TokenId] | list[list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = Field(None, max_length=1024)


class TokenizeRequest(Strict):
    """`special` recognises special tokens written in the text; `prompt` adds what the model expects."""

    model: str | None = Field(None, max_length=256)
    text: str
    special: bool = False
    prompt: bool = False


class DetokenizeRequest(Strict):
    model: str | None = Field(None, max_length=256)
    tokens: list[TokenId]
    special: bool = True
