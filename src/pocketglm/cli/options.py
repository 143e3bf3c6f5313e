"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from pocketglm.cli.sizes import parse_size
from pocketglm.errors import InputError

Value = TypeVar("Value")

LEAST_MEMORY = 64 << 20
"""Even weights streamed from disk pass in pieces of some MiB, beside activations, logits and caches."""


def parsed(parse: Callable[[str], Value], text: str) -> Value:
    """What `parse` makes of an option's text; its `InputError` becomes the command line's own error."""
    try:
        return parse(text)
    except InputError as error:
        raise typer.BadParameter(f"{error} ({error.hint})" if error.hint else str(error)) from None


def size(text: str) -> int:
    """Bytes, from a size as people write it."""
    return parsed(parse_size, text)


def _memory(text: str) -> int:
    size = parsed(parse_size, text)
    if size < LEAST_MEMORY:
        raise typer.BadParameter(f"{text} is too little for any model; allow at least 64 MiB")
    return size


KV_TYPES = ("float32", "float16", "int8")


def _kv(text: str) -> str:
    if text not in KV_TYPES:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(KV_TYPES)}")
    return text


_BACKEND = re.compile(r"(head|(?P<first>\d{1,4})(-(?P<last>\d{1,4}))?)=(?P<name>\w+)")


def parse_backend(text: str) -> str | dict[int | str, str]:
    """A backend's name, or names by block index and `head` from `0-13=opencl,head=cpu`."""
    if "=" not in text:
        return text
    named: dict[int | str, str] = {}
    for item in text.split(","):
        match = _BACKEND.fullmatch(item)
        if match is None:
            raise typer.BadParameter(f"{item!r} is not like 0-13=cpu, 5=cpu or head=cpu")
        first, last, name = match.group("first", "last", "name")
        if first is None:
            named["head"] = name
        else:
            named |= dict.fromkeys(range(int(first), int(last or first) + 1), name)
    return named


PackageArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A package made by `pocketglm convert`.")
]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", metavar="NAME", help="Engine to run on; the best there is if left out."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads to compute with; the engine's choice if left out."),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        parser=_memory,
        metavar="SIZE",
        help="Memory the whole program may use, such as 2GiB or 800MiB; other engines than native take it "
        "as a hint.",
    ),
]
BackendOption = Annotated[
    Any,
    typer.Option(
        "--backend",
        parser=parse_backend,
        metavar="NAMES",
        help="Where the engine torch computes (cuda, cuda:1, xpu, mps, cpu), or mnn: one name, or by block, "
        "as in 0-13=opencl,14-27=cpu,head=cpu.",
    ),
]
PlaceOption = Annotated[
    str | None,
    typer.Option(
        "--place",
        metavar="TEXT|FILE",
        help="Where the blocks go, as in gpu:0-9,ram:10-26,disk:27,ram:head, or a plan's file; --engine is "
        "then for those beside the GPU, --backend names the GPU.",
    ),
]
GpuLayersOption = Annotated[
    int | None,
    typer.Option(
        "--gpu-layers", min=0, metavar="N", help="The first N blocks on the GPU; with all, the head too."
    ),
]
GpuMemoryOption = Annotated[
    int | None,
    typer.Option(
        "--gpu-memory",
        parser=size,
        metavar="SIZE",
        help="Memory of the GPU the program may use; blocks that do not fit move off it.",
    ),
]
KvOption = Annotated[
    Any,
    typer.Option(
        "--kv",
        parser=_kv,
        metavar="TYPE",
        help="What the engines native and torch keep the cache in: float32, float16 (if left out) or int8.",
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        "--context",
        min=1,
        metavar="N",
        help="Most tokens of prompt and answer; the model's own context if left out, or with --memory "
        "what fits a quarter of it.",
    ),
]
LookupOption = Annotated[
    int | None,
    typer.Option(
        "--lookup",
        min=0,
        max=64,
        metavar="N",
        help="Tokens guessed ahead from what the text has said before, 0: none. If left out, as many as "
        "change no result.",
    ),
]
SessionOption = Annotated[
    Path | None,
    typer.Option(
        "--session",
        metavar="FILE",
        help="Keep the cache in this file: read it first if it exists, write it at the end.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=0, help="Most tokens of an answer; to the end of the context if left out."
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature", min=0, help="0: always the most probable token. The model's own setting if left out."
    ),
]
TopKOption = Annotated[
    int | None, typer.Option("--top-k", min=0, help="Draw from the K most probable tokens; 0: from all.")
]
TopPOption = Annotated[
    float | None,
    typer.Option("--top-p", min=0, max=1, help="Draw from the most probable tokens that reach P together."),
]
MinPOption = Annotated[
    float | None,
    typer.Option("--min-p", min=0, max=1, help="Draw from tokens at least P times as probable as the first."),
]
RepetitionOption = Annotated[
    float | None, typer.Option("--repetition-penalty", help="Above 1: avoid tokens of prompt and answer.")
]
PresenceOption = Annotated[
    float | None, typer.Option("--presence-penalty", help="Above 0: avoid tokens of the answer.")
]
FrequencyOption = Annotated[
    float | None,
    typer.Option("--frequency-penalty", help="Above 0: avoid tokens by how often the answer has them."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Makes sampling repeatable.")]
StopOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", help="End the answer before this text. May be given several times."
    ),
]
IgnoreEndOption = Annotated[bool, typer.Option("--ignore-eos", help="Go on past the model's end tokens.")]
SystemOption = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System prompt, for models that take one.")
]
