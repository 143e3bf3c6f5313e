"""`pocketglm bench`: speed, load time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketglm.cli import console, options
from pocketglm.cli.placing import placement_of
from pocketglm.cli.progress import progress_bar
from pocketglm.cli.sizes import format_size

if TYPE_CHECKING:
    from pocketglm.generate.bench import BenchResult


def _lengths(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise typer.BadParameter(f"{text!r} is not like 16,2048")
    return [int(word) for word in words]


def bench(
    package: options.PackageArgument,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after it.")] = 32,
    sequences: Annotated[int, typer.Option(min=1, help="Sequences decoded together.")] = 1,
    contexts: Annotated[
        Any,
        typer.Option(
            "--contexts",
            parser=_lengths,
            metavar="N,N",
            help="Measure one sequence after prompts of these lengths too, such as 16,2048.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
    memory: options.MemoryOption = None,
    backend: options.BackendOption = None,
    place: options.PlaceOption = None,
    gpu_layers: options.GpuLayersOption = None,
    gpu_memory: options.GpuMemoryOption = None,
    kv: options.KvOption = None,
    context: options.ContextOption = None,
    json: options.JsonOption = False,
) -> None:
    """Measure speed, load time and peak memory.

    Prefill and decode run over tokens of a real text.
    """
    from pocketglm.generate.bench import BenchSettings
    from pocketglm.generate.bench import bench as measure

    asked = {"memory": memory, "context": context, "kv": kv, "backend": backend, "threads": threads}
    placement = placement_of(package, place, gpu_layers, gpu_memory, **asked)
    settings = BenchSettings(prompt_tokens, new_tokens, sequences, rounds, tuple(contexts or ()))
    with progress_bar("measuring") as update:
        result = measure(
            package,
            settings,
            **{"engine": engine, "threads": threads, "memory": memory, "backend": backend},
            **{"kv": kv, "context": context, "placement": placement, "progress": update},
        )
    if json:
        console.report(result.to_dict())
        return
    console.answer(console.pairs(_rows(result)))


def _rows(result: BenchResult) -> list[tuple[str, str]]:
    together = f", {result.sequences} sequences together" if result.sequences > 1 else ""
    first = f", the first {result.first_prefill_tps:.1f}" if result.rounds > 1 else ""
    rows = [
        ("engine", result.engine),
        *([("placement", result.placement)] if result.placement else []),
        ("load", f"{result.load_s:.2f} s"),
        ("prefill", f"{result.prefill_tps:.1f} tokens/s ({result.prompt_tokens} tokens{first})"),
        ("decode", f"{result.decode_tps:.1f} tokens/s ({result.new_tokens} tokens{together})"),
    ]
    for rates in result.contexts:
        speeds = f"prefill {rates.prefill_tps:.1f}, decode {rates.decode_tps:.1f} tokens/s"
        rows.append((f"at {rates.context} tokens", speeds))
    rows.append(("peak memory", format_size(result.peak_rss_bytes)))
    if result.peak_anonymous_bytes:
        rows.append(("of it anonymous", format_size(result.peak_anonymous_bytes)))
    return rows
