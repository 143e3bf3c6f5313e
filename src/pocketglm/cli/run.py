"""`pocketglm run`: one prompt, one answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketglm.cli import console, options
from pocketglm.cli.automatic import chosen_placement
from pocketglm.errors import InputError

if TYPE_CHECKING:
    from pocketglm.generate.model import Model
    from pocketglm.generate.session import Session
    from pocketglm.generate.stream import Generation


def run(
    package: options.PackageArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT]",
            help="The text to answer; from standard input if left out or `-`.",
            show_default=False,
        ),
    ] = None,
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
    ignore_eos: options.IgnoreEndOption = False,
    system: options.SystemOption = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text instead of answering it: no chat template.")
    ] = False,
    tidy: Annotated[
        bool,
        typer.Option(
            "--tidy", help="Show the whole answer at the end, tidied as ChatGLM-6B's own chat does."
        ),
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print counts and speed to standard error.")] = False,
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
    json: options.JsonOption = False,
) -> None:
    """Answer one prompt.

    The answer goes to standard output as it is made. Models without a chat template continue the text.
    """
    from pocketglm.generate.answer_text import tidy_answer
    from pocketglm.generate.model import load

    text = read_prompt(prompt)
    if not text and not raw:
        raise InputError(
            "the prompt is empty", hint="give some text; with --raw, a model may start from nothing"
        )
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
            ignore_eos=ignore_eos or None,
        )
        with kept_session(model, session_file) as session:
            generation = model.answer(prompt_ids(model, text, system, raw), settings, session)
            if json:
                result = result_of(generation.finish(), tidy)
                console.report({"engine": model.engine_name, "placement": model.place_text, **result})
            elif tidy:
                console.answer(tidy_answer(generation.finish().text))
            else:
                print_answer(generation)
            if stats:
                console.note(speed_line(generation))


@contextmanager
def kept_session(model: Model, path: Path | None) -> Iterator[Session]:
    """A session that begins with the cache in a file, if there is one, and is written there at the end."""
    with model.session() as session:
        if path is not None and path.exists():
            session.restore(path)
        yield session
        if path is not None:
            session.save(path)


def read_prompt(prompt: str | None) -> str:
    """The prompt, or standard input without its last line break."""
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise InputError(
            "there is no prompt", hint='give one as an argument, like "What is ice?", or pipe it in'
        )
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 ({error})") from None


def prompt_ids(model: Model, text: str, system: str | None, raw: bool) -> list[int]:
    """Token ids of the prompt: through the chat template, unless `raw` or there is none."""
    if raw or not model.has_template:
        if system is not None:
            reason = "--raw" if raw else "a model without a chat template"
            raise InputError(f"--system does not go with {reason}")
        return model.prompt(text)
    messages = [{"role": "system", "content": system}] if system is not None else []
    return model.chat_prompt([*messages, {"role": "user", "content": text}])


def print_answer(generation: Generation) -> None:
    """Stream an answer to standard output; it ends with a line break however it ends."""
    try:
        for text in generation.texts():
            console.answer(text, end="")
    finally:
        if not generation.text.endswith("\n"):
            console.answer("")


def result_of(generation: Generation, tidy: bool = False) -> dict[str, Any]:
    """What `--json` prints of an answer."""
    from pocketglm.generate.answer_text import tidy_answer

    return {
        "text": tidy_answer(generation.text) if tidy else generation.text,
        "token_ids": generation.tokens,
        "finish_reason": generation.finish_reason,
        **generation.statistics.to_dict(),
    }


def speed_line(generation: Generation) -> str:
    """One line about an answer: `34 tokens at 12.3 tokens/s; prompt: 20 tokens in 0.31 s`."""
    figures = generation.statistics
    reused = f" ({figures.reused_tokens} from the cache)" if figures.reused_tokens else ""
    speed = f" at {figures.decode_tps:.1f} tokens/s" if figures.decode_tps else ""
    guessed = f", {figures.accepted_tokens} of them guessed" if figures.accepted_tokens else ""
    return (
        f"[{figures.generated_tokens} tokens{speed}{guessed}; "
        f"prompt: {figures.prompt_tokens} tokens{reused} in {figures.prefill_s:.2f} s]"
    )
