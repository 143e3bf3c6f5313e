"""The web application: endpoints, checks around them, the page's files.

Enters: an asynchronous model and settings. Leaves: an ASGI application. Whoever makes it closes the model.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from pocketglm import __version__
from pocketglm.serve.async_model import AsyncModel
from pocketglm.serve.chat_endpoint import chat_router
from pocketglm.serve.completions_endpoint import completions_router
from pocketglm.serve.host_guard import HostGuard
from pocketglm.serve.http_errors import add_error_handlers
from pocketglm.serve.openapi import use_own_document
from pocketglm.serve.other_endpoints import other_router
from pocketglm.serve.request_guard import RequestGuard
from pocketglm.serve.service import Service
from pocketglm.serve.settings import ServerSettings
from pocketglm.serve.web_files import WebFile, read_web_files


def create_app(
    engine: AsyncModel, settings: ServerSettings, web_files: Mapping[str, WebFile] | None = None
) -> FastAPI:
    """`web_files` are the page's (None: those of the installed package)."""
    service = Service(engine, settings)
    # The interactive documents would load scripts from other sites
    app = FastAPI(title="PocketGLM", version=__version__, docs_url=None, redoc_url=None)
    add_error_handlers(app)
    for make in (chat_router, completions_router, other_router):
        app.include_router(make(service))
    use_own_document(app)
    pages = read_web_files() if web_files is None else web_files
    for path, file in pages.items():
        _add_file(app, path, file)
    endpoints = [path for path in app.openapi()["paths"] if "{" not in path]
    app.add_middleware(RequestGuard, settings=settings, open_paths=("/health", *pages))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type"),
        )
    app.add_middleware(HostGuard, settings=settings, metrics=service.metrics, endpoints=(*endpoints, "/"))
    return app


def _add_file(app: FastAPI, path: str, file: WebFile) -> None:
    headers = {"ETag": file.etag, "Cache-Control": file.cache_control}

    async def send_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.media_type, headers=headers)

    app.add_route(path, send_file, methods=["GET"], include_in_schema=False)
