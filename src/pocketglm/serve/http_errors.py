"""Errors in the shape that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.

Enters: anything that was raised while a request was served. Leaves: a status and a body.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pocketglm.errors import BusyError, ContextError, EngineError, InputError, PocketGLMError

logger = logging.getLogger(__name__)

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
"""Of errors below 500; the others are `invalid_request_error`."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_UNION = re.compile(r"(str|int|float|bool|list|dict|literal|constrained-\w+|json_schema|[A-Z]\w+)\Z|.*[\[(]")


class ApiError(Exception):
    """A request that is refused, as the client gets to see it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return error_body(self.status, self.message, self.param, self.code)

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, headers=self.headers)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON of an error."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def api_error(error: Exception, param: str | None = None, retry_after_s: int | None = None) -> ApiError:
    """What a client is told about an error. Details of unexpected ones stay in the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        headers = {"Retry-After": str(retry_after_s or 1)}
        return ApiError(429, _with_hint(error), code="queue_full", headers=headers)
    if isinstance(error, InputError):
        code = "context_length_exceeded" if isinstance(error, ContextError) else None
        return ApiError(400, _with_hint(error), param=param, code=code)
    if isinstance(error, PocketGLMError) and not isinstance(error, EngineError):
        return ApiError(500, _with_hint(error))
    logger.error("a request failed", exc_info=error)
    return ApiError(500, str(error) if isinstance(error, EngineError) else "internal error")


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of the application have the one shape."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(PocketGLMError)
    async def known(_: Request, error: PocketGLMError) -> JSONResponse:
        return api_error(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _validation_error(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        message = {
            404: f"there is nothing at {request.url.path}",
            405: f"{request.url.path} does not take {request.method}",
        }.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, headers=error.headers or {}).response()

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "internal error").response()  # starlette logs the traceback


def _validation_error(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first problem that pydantic found, with the parameter's name."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {problem.get('ctx', {}).get('error', '')}")
    name = problem.get("ctx", {}).get("name") or parameter_name(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {name}", param=name, code="unknown_parameter")
    message = str(problem["msg"])
    code = "unsupported" if problem["type"] == "unsupported" else None
    shown = message if not name or message.startswith(name) else f"{name}: {message}"
    return ApiError(400, shown, param=name or None, code=code)


def parameter_name(place: Sequence[str | int]) -> str:
    """`messages.0.content` from pydantic's path, in which the kinds of a union stand too."""
    names = [str(part) for part in place if part not in ("body", "query", "path")]
    return ".".join(
        name
        for before, name in zip(["", *names], names, strict=False)
        if not (_UNION.match(name) or (before.isdecimal() and name in ROLES))
    )


def _with_hint(error: PocketGLMError) -> str:
    return error.message if error.hint is None else f"{error.message} ({error.hint})"
