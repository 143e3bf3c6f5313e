"""`/v1/completions`.

Enters: a completion request. Leaves: its answers, asked for and ready to be sent.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from pocketglm.errors import PocketGLMError
from pocketglm.generate.model import Model
from pocketglm.serve.answer_request import AnswerRequest
from pocketglm.serve.answer_response import AnswerResponse
from pocketglm.serve.chat_prompt import room_for_prompt
from pocketglm.serve.completion_answers import CompletionAnswers
from pocketglm.serve.http_errors import ApiError, api_error
from pocketglm.serve.openapi import ERRORS, answer_of
from pocketglm.serve.protocol import CompletionRequest
from pocketglm.serve.protocol_answers import CompletionAnswer
from pocketglm.serve.sampling_parameters import choices_of, settings_of
from pocketglm.serve.service import Service

DEFAULT_TOKENS = 16
"""OpenAI's default for plain completions, which have no end of their own."""


def completions_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/completions",
        summary="Continue a text",
        responses={200: answer_of(CompletionAnswer, streams=True), **ERRORS},
        response_class=Response,
    )
    async def completions(request: CompletionRequest) -> AnswerResponse:
        return await answer_completion(service, request)

    return router


async def answer_completion(service: Service, request: CompletionRequest) -> AnswerResponse:
    """Check, encode, ask; raises `ApiError`."""
    service.check_model(request.model)
    model, limits = service.engine.model, service.settings.limits
    settings = settings_of(request, model, limits, request.max_tokens or DEFAULT_TOKENS)
    choices = choices_of(request, settings, limits)
    try:
        prompts = await asyncio.to_thread(encode_prompts, model, request.prompt)
        if len(prompts) > limits.prompts or len(prompts) * len(choices) > limits.prompts:
            raise ApiError(400, f"more than {limits.prompts} answers in one request", param="prompt")
        slide = request.context_overflow == "sliding_window" and model.spec.prefix_tokens is None
        if slide:
            prompts = [latest_tokens(model, prompt, settings.max_new_tokens) for prompt in prompts]
        answers = service.engine.submit_all(
            [
                AnswerRequest(prompt, each, top_logprobs=request.logprobs, slide=slide)
                for prompt in prompts
                for each in choices
            ]
        )
    except PocketGLMError as error:
        raise api_error(error, "prompt", service.engine.retry_after_s) from None
    options = request.stream_options
    return AnswerResponse(
        service,
        answers,
        CompletionAnswers(service, len(answers), request.logprobs is not None),
        choices=len(choices),
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
    )


def encode_prompts(
    model: Model, prompt: str | list[str] | list[int] | list[list[int]]
) -> list[tuple[int, ...]]:
    """Token ids of each prompt; texts get what the model expects around a bare prompt."""
    if isinstance(prompt, str):
        return [tuple(model.prompt(prompt))]
    if prompt and isinstance(prompt[0], int):
        return [tuple(token for token in prompt if isinstance(token, int))]
    return [
        tuple(model.prompt(each)) if isinstance(each, str) else tuple(each)
        for each in prompt
        if not isinstance(each, int)
    ] or [()]


def latest_tokens(model: Model, prompt: tuple[int, ...], max_tokens: int | None) -> tuple[int, ...]:
    """The first token and the latest ones of a prompt that is too long."""
    room = room_for_prompt(model, max_tokens)
    return prompt if len(prompt) <= room else (prompt[0], *prompt[-(room - 1) :])
