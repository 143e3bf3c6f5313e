"""What the server answers, for the OpenAPI document and for the tests that hold answers against it.

Enters: nothing; the JSON itself is built in `chat_answers.py` and `completion_answers.py`, where a stream
needs it a token at a time. Leaves: models of it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorDetail(Exact):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Exact):
    error: ErrorDetail


class PromptDetails(Exact):
    cached_tokens: int


class Usage(Exact):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Timings(Exact):
    prompt_tokens: int
    reused_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    prompt_tokens_per_second: float
    tokens_per_second: float


class TopLogprob(Exact):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Exact):
    content: list[TokenLogprob]
    refusal: None


class CalledFunction(Exact):
    name: str
    arguments: str


class AnswerToolCall(Exact):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(Exact):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnswerToolCall] | None = None


class ChatChoice(Exact):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatAnswer(Exact):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings


class CompletionLogprobs(Exact):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Exact):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(Exact):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    timings: Timings


class EmbeddingUsage(Exact):
    prompt_tokens: int
    total_tokens: int


class Embedding(Exact):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(Exact):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


class ModelCard(Exact):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Exact):
    object: Literal["list"]
    data: list[ModelCard]


class TokenizeAnswer(Exact):
    tokens: list[int]
    count: int


class DetokenizeAnswer(Exact):
    text: str


class Health(Exact):
    status: Literal["ok"]


class BlockPlace(Exact):
    index: int
    engine: str
    place: str


class MemoryUse(Exact):
    rss_bytes: int
    weight_bytes: int
    cache_bytes: int
    buffer_bytes: int
    gpu_bytes: int  # of weights and caches there; the others are of the process


class RequestCounts(Exact):
    running: int
    waiting: int
    limit: int


class Status(Exact):
    model: str
    context_length: int
    engine: str
    threads: int | None
    blocks: list[BlockPlace]
    memory: MemoryUse
    requests: RequestCounts
    sampling_defaults: dict[str, Any]
    template: bool
    tools: bool
    version: str
