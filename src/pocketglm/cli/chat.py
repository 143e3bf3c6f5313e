"""`pocketglm chat`: a conversation with a package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pocketglm.cli import console, options
from pocketglm.cli.automatic import chosen_placement


def chat(
    package: options.PackageArgument,
    engine: options.EngineOption = None,
    max_tokens: options.MaxTokensOption = None,
    temperature: options.TemperatureOption = None,
    top_k: options.TopKOption = None,
    top_p: options.TopPOption = None,
    min_p: options.MinPOption = None,
    repetition_penalty: options.RepetitionOption = None,
    presence_penalty: options.PresenceOption = None,
    frequency_penalty: options.FrequencyOption = None,
    seed: options.SeedOption = None,
    stop: options.StopOption = None,
    system: options.SystemOption = None,
    load_file: Annotated[
        Path | None, typer.Option("--load", metavar="FILE", help="Go on with a saved conversation.")
    ] = None,
    drop_oldest: Annotated[
        bool,
        typer.Option(
            "--drop-oldest", help="Forget the oldest turns when the context is full, instead of refusing."
        ),
    ] = False,
    threads: options.ThreadsOption = None,
    memory: options.MemoryOption = None,
    backend: options.BackendOption = None,
    place: options.PlaceOption = None,
    gpu_layers: options.GpuLayersOption = None,
    gpu_memory: options.GpuMemoryOption = None,
    kv: options.KvOption = None,
    context: options.ContextOption = None,
    lookup: options.LookupOption = None,
    session_file: options.SessionOption = None,
) -> None:
    """Chat with a model. /help lists the commands; Ctrl-C stops an answer, Ctrl-D or /quit ends.

    Answers go to standard output, everything else to standard error. Messages may be piped in, one a line.
    """
    from pocketglm.cli.chat_input import line_reader
    from pocketglm.cli.chat_loop import ChatLoop
    from pocketglm.cli.run import kept_session
    from pocketglm.generate.chat import Conversation, Overflow
    from pocketglm.generate.model import load

    conversation = Conversation.load(load_file) if load_file else Conversation()
    if system is not None:
        conversation.system = system
    limits = {"kv": kv, "context": context, "lookup": lookup}
    asked = {"memory": memory, "context": context, "kv": kv, "backend": backend, "threads": threads}
    placement = chosen_placement(package, engine, place, gpu_layers, gpu_memory, **asked)
    with load(package, engine, threads, memory, backend, placement=placement, **limits) as model:
        settings = model.settings(
            max_new_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            seed=seed,
            stop=tuple(stop) if stop else None,
        )
        _ = model.template  # a model that cannot chat is refused before the first question
        if sys.stdin.isatty():
            console.note(
                f"{model.spec.family} from {package} on the {model.engine_name} engine; /help lists commands"
            )
        overflow: Overflow = "drop_oldest" if drop_oldest else "error"
        with kept_session(model, session_file) as session:
            ChatLoop(model, settings, conversation, session, overflow).run(line_reader())
