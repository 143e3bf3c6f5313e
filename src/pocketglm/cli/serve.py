"""`pocketglm serve`: an OpenAI-compatible server and a chat page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketglm.cli import console, options
from pocketglm.cli.automatic import chosen_placement
from pocketglm.cli.sizes import parse_size
from pocketglm.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from pocketglm.generate.model import Model


SERVER_BYTES = 16 << 20
"""What the server comes to hold beside the model, as measured: requests and answers of some clients."""

GRAMMAR_BYTES = 512
"""For each token of the vocabulary, once an answer is constrained: the tokens' bytes and their trie."""


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InputError as error:
        raise typer.BadParameter(f"{error} ({error.hint})" if error.hint else str(error)) from None


def serve(
    package: options.PackageArgument,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen. 0.0.0.0 lets other machines in."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="POCKETGLM_API_KEY",
            help="Key that requests must carry. In the environment, other users do not see it.",
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", metavar="NAME", help="The model's name in the API; DIR's if left out."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Host name to answer for. May be repeated."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin", metavar="ORIGIN", help="Site whose pages may call the API. May be repeated."
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Answers computed together.")] = 16,
    queue: Annotated[
        int, typer.Option("--queue", min=0, help="Answers that may wait; what comes beyond gets a 429.")
    ] = 64,
    cache_memory: Annotated[
        Any,
        typer.Option(
            "--cache-memory",
            parser=_size,
            metavar="SIZE",
            help="Memory for all KV caches, such as 1GiB; a quarter of the free memory if left out.",
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that answers may go on after a stop signal.")
    ] = 10.0,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
    memory: options.MemoryOption = None,
    backend: options.BackendOption = None,
    place: options.PlaceOption = None,
    gpu_layers: options.GpuLayersOption = None,
    gpu_memory: options.GpuMemoryOption = None,
    kv: options.KvOption = None,
    context: options.ContextOption = None,
    lookup: options.LookupOption = None,
) -> None:
    """Serve a model: OpenAI's API under /v1, and a chat page.

    Ends with Ctrl-C or SIGTERM. Listens on this machine only, unless --host says otherwise.
    """
    from pocketglm.generate.model import load

    try:
        from pocketglm.serve.run_server import serve as run
    except ImportError as error:
        raise MissingExtraError(
            f"the server needs packages that are not installed ({error.name})",
            hint="pip install 'pocketglm[serve]'",
        ) from None
    from pocketglm.serve.settings import BatchSettings, ServerSettings

    settings = ServerSettings(
        model_name=model_name or package.resolve().name,
        host=host,
        port=port,
        api_key=api_key,
        allowed_hosts=tuple(allow_host or ()),
        cors_origins=tuple(cors_origin or ()),
        grace_s=grace,
    )
    if memory is not None:
        memory = memory_for_model(package, memory)
    limits = {"kv": kv, "context": context, "lookup": lookup}
    asked = {"memory": memory, "context": context, "kv": kv, "backend": backend, "threads": threads}
    placement = chosen_placement(package, engine, place, gpu_layers, gpu_memory, **asked)
    with load(package, engine, threads, memory, backend, placement=placement, **limits) as model:
        limited = memory is not None or (placement is not None and placement.memory is not None)
        cache = cache_memory or (one_context(model) if limited else None)
        run(model, settings, BatchSettings(batch, queue, cache), ready=_say_where)


def memory_for_model(package: Path, memory: int) -> int:
    """What the server itself leaves of a limit. Raises `InputError` where that is nothing."""
    from pocketglm.cli.sizes import format_size
    from pocketglm.package.reader import read_manifest

    own = SERVER_BYTES + GRAMMAR_BYTES * read_manifest(package).spec.vocab_size
    if memory <= own:
        raise InputError(
            f"a limit of {format_size(memory)} is too small: the server alone takes {format_size(own)}",
            hint="allow more memory",
        )
    console.note(f"{format_size(own)} of the memory allowed are for the server, the rest is for the model")
    return memory - own


def one_context(model: Model) -> int:
    """Bytes of one full context: what a limit on the program's memory has put aside for caches."""
    from pocketglm.plan.kv_cache import kv_bytes_per_token

    return model.context * kv_bytes_per_token(model.spec, model.kv)


def _say_where(address: str) -> None:
    console.note(f"page: {address}/")
    console.note(f"API:  {address}/v1")
