"""`/v1/chat/completions`.

Enters: a chat request. Leaves: its answers, asked for and ready to be sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Response

from pocketglm.errors import PocketGLMError
from pocketglm.serve.answer_request import AnswerRequest
from pocketglm.serve.answer_response import AnswerResponse
from pocketglm.serve.chat_answers import ChatAnswers
from pocketglm.serve.chat_prompt import encode_chat
from pocketglm.serve.grammar import Grammar
from pocketglm.serve.http_errors import ApiError, api_error
from pocketglm.serve.openapi import ERRORS, answer_of
from pocketglm.serve.protocol import ChatRequest, NamedTool, SchemaFormat, ToolDefinition
from pocketglm.serve.protocol_answers import ChatAnswer
from pocketglm.serve.sampling_parameters import choices_of, settings_of
from pocketglm.serve.service import Service
from pocketglm.serve.tool_calls import Tool
from pocketglm.serve.tool_watch import ToolWatch


def chat_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/chat/completions",
        summary="Answer a conversation",
        responses={200: answer_of(ChatAnswer, streams=True), **ERRORS},
        response_class=Response,
    )
    async def chat_completions(request: ChatRequest) -> AnswerResponse:
        return await answer_chat(service, request)

    return router


async def answer_chat(service: Service, request: ChatRequest) -> AnswerResponse:
    """Check, encode, ask; raises `ApiError`."""
    _check(service, request)
    model, limits = service.engine.model, service.settings.limits
    tools = offered_tools(request)
    watching = service.tools() if tools else None
    settings = settings_of(request, model, limits, request.max_completion_tokens or request.max_tokens)
    choices = choices_of(request, settings, limits)
    try:
        form = None if isinstance(service.tool_format, PocketGLMError) else service.tool_format
        prompt = await asyncio.to_thread(encode_chat, model, request, tools, form)
        grammar = await asyncio.to_thread(_grammar, service, request, tools)
    except PocketGLMError as error:
        raise api_error(error, "messages") from None
    asked = [
        AnswerRequest(
            prompt,
            each,
            top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            grammar=grammar,
            slide=request.context_overflow == "sliding_window" and model.spec.prefix_tokens is None,
            show_special=bool(tools),
        )
        for each in choices
    ]
    try:
        answers = service.engine.submit_all(asked)
    except PocketGLMError as error:
        raise api_error(error, "messages", service.engine.retry_after_s) from None
    parallel = request.parallel_tool_calls is not False
    named = [Tool(tool.function.name, tool.function.parameters or {}) for tool in tools]
    watches = [ToolWatch(watching, named, parallel) if watching else None for _ in answers]
    options = request.stream_options
    return AnswerResponse(
        service,
        answers,
        ChatAnswers(service, watches, bool(request.logprobs)),
        choices=len(choices),
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
    )


def offered_tools(request: ChatRequest) -> list[ToolDefinition]:
    """The tools that may be called: none under `none`, the named one alone where one is named."""
    tools = request.tools or []
    if request.tool_choice == "none":
        return []
    if isinstance(request.tool_choice, NamedTool):
        name = request.tool_choice.function.name
        chosen = [tool for tool in tools if tool.function.name == name]
        if not chosen:
            raise ApiError(400, f"tool_choice names {name!r}, which is not among tools", param="tool_choice")
        return chosen
    return tools


def _check(service: Service, request: ChatRequest) -> None:
    service.check_model(request.model)
    limits = service.settings.limits
    if not service.engine.model.has_template:
        raise ApiError(
            400, "this model has no chat template; use /v1/completions", param="messages", code="unsupported"
        )
    if len(request.messages) > limits.messages:
        raise ApiError(400, f"more than {limits.messages} messages", param="messages")
    if len(request.tools or []) > limits.tools:
        raise ApiError(400, f"more than {limits.tools} tools", param="tools")
    names = [tool.function.name for tool in request.tools or []]
    if len(set(names)) < len(names):
        raise ApiError(400, "two tools have one name", param="tools")


def _grammar(service: Service, request: ChatRequest, tools: list[ToolDefinition]) -> Grammar | None:
    """What the answer is constrained to: a call where one is demanded, else the response format."""
    wanted = request.response_format
    constrained = wanted is not None and wanted.type != "text"
    if tools and request.tool_choice not in (None, "auto"):
        form, parallel = service.tools(), request.parallel_tool_calls is not False
        named = [Tool(tool.function.name, tool.function.parameters or {"type": "object"}) for tool in tools]
        return _compiled(lambda: service.compiler().from_lark(form.lark(named, parallel)), "tools")
    if not constrained or wanted is None:
        return None
    if tools:
        raise ApiError(
            400,
            "response_format does not go with tools the model may choose to call",
            param="response_format",
            code="unsupported",
        )
    schema = {"type": "object"}
    if isinstance(wanted, SchemaFormat):
        schema = wanted.json_schema.schema_ or {}
    return _compiled(lambda: service.compiler().from_schema(schema), "response_format")


def _compiled(compile_it: Callable[[], Grammar], param: str) -> Grammar:
    try:
        return compile_it()
    except PocketGLMError as error:
        raise api_error(error, param) from None
