"""Models, embeddings, tokens, health, metrics, status.

Enters: small requests. Leaves: JSON at once.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from pocketglm.errors import PocketGLMError
from pocketglm.serve.completions_endpoint import encode_prompts
from pocketglm.serve.http_errors import ApiError, api_error
from pocketglm.serve.openapi import ERRORS, answer_of
from pocketglm.serve.protocol import DetokenizeRequest, EmbeddingRequest, TokenizeRequest
from pocketglm.serve.protocol_answers import (
    DetokenizeAnswer,
    EmbeddingAnswer,
    Health,
    ModelCard,
    ModelList,
    Status,
    TokenizeAnswer,
)
from pocketglm.serve.service import Service
from pocketglm.serve.status import status_of


def other_router(service: Service) -> APIRouter:
    router = APIRouter()
    _add_models(router, service)
    _add_embeddings(router, service)
    _add_tokens(router, service)
    _add_state(router, service)
    return router


def _add_models(router: APIRouter, service: Service) -> None:
    card = ModelCard(
        id=service.settings.model_name, object="model", created=service.started, owned_by="pocketglm"
    )

    @router.get("/v1/models", summary="The served model", responses=ERRORS)
    async def models() -> ModelList:
        return ModelList(object="list", data=[card])

    @router.get("/v1/models/{name:path}", summary="The served model, by its name", responses=ERRORS)
    async def model(name: str) -> ModelCard:
        service.check_model(name)
        return card


def _add_embeddings(router: APIRouter, service: Service) -> None:
    @router.post(
        "/v1/embeddings",
        summary="Mean-pooled last hidden state, of length one",
        responses={200: answer_of(EmbeddingAnswer), **ERRORS},
    )
    async def embeddings(request: EmbeddingRequest) -> Response:
        service.check_model(request.model)
        limit = service.settings.limits.embedding_inputs
        try:
            texts = await asyncio.to_thread(encode_prompts, service.engine.model, request.input)
            if len(texts) > limit:
                raise ApiError(400, f"more than {limit} inputs", param="input")
            vectors = await service.engine.embed(texts)
        except PocketGLMError as error:
            raise api_error(error, "input", service.engine.retry_after_s) from None
        as_text = request.encoding_format == "base64"
        data: list[dict[str, Any]] = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                if as_text
                else [float(value) for value in vector],
            }
            for index, vector in enumerate(vectors)
        ]
        count = sum(map(len, texts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return JSONResponse(
            {"object": "list", "model": service.settings.model_name, "data": data, "usage": usage}
        )


def _add_tokens(router: APIRouter, service: Service) -> None:
    @router.post("/tokenize", summary="Token ids of a text", responses=ERRORS)
    async def tokenize(request: TokenizeRequest) -> TokenizeAnswer:
        service.check_model(request.model)
        tokenizer = service.engine.model.tokenizer
        ids = await asyncio.to_thread(
            tokenizer.encode, request.text, allow_special=request.special, prompt=request.prompt
        )
        return TokenizeAnswer(tokens=ids, count=len(ids))

    @router.post("/detokenize", summary="The text of token ids", responses=ERRORS)
    async def detokenize(request: DetokenizeRequest) -> DetokenizeAnswer:
        service.check_model(request.model)
        model = service.engine.model
        if outside := [token for token in request.tokens if token >= model.spec.vocab_size]:
            message = f"token id {outside[0]} is outside the vocabulary of {model.spec.vocab_size}"
            raise ApiError(400, message, param="tokens")
        text = await asyncio.to_thread(
            model.tokenizer.decode, request.tokens, skip_special=not request.special
        )
        return DetokenizeAnswer(text=text)


def _add_state(router: APIRouter, service: Service) -> None:
    @router.get("/health", summary="Whether the server answers")
    async def health() -> Health:
        return Health(status="ok")

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses=ERRORS)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/pocketglm/status", summary="What the page shows of the server", responses=ERRORS)
    async def status() -> Status:
        return await asyncio.to_thread(status_of, service)  # it waits for a step to end
