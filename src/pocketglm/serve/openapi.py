"""What the OpenAPI document says beyond the types of requests.

Enters: models of answers. Leaves: `responses` for FastAPI's routes, and a document without the answers
that this server never gives.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from pocketglm.serve.protocol_answers import ErrorAnswer

REASONS = {
    400: "The request is wrong; the message says what",
    401: "The API key is missing or wrong",
    403: "Another site's page may not call this",
    404: "There is no such thing here",
    408: "The request's body did not come in time",
    413: "The body is too large",
    415: "The body is not JSON",
    421: "The Host header names another host",
    429: "Too many requests wait; Retry-After says when to try again",
    431: "The headers are too large",
    500: "The server failed",
    503: "The server is shutting down",
    504: "The answer took too long",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text} for status, text in REASONS.items()
}


def answer_of(model: type[BaseModel], streams: bool = False) -> dict[str, Any]:
    """A success, as JSON and, for what can stream, as events."""
    answer: dict[str, Any] = {"model": model, "description": "The answer"}
    if streams:
        text = "A chunk of the answer as a JSON object; in the last event, `[DONE]`"
        event = {"type": "object", "properties": {"data": {"type": "string", "description": text}}}
        answer["content"] = {"text/event-stream": {"schema": {**event, "required": ["data"]}}}
    return answer


def use_own_document(app: FastAPI) -> None:
    """FastAPI documents 422 for wrong requests; like OpenAI's, this API answers 400."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for operations in found["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                found.get("components", {}).get("schemas", {}).pop(name, None)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
