"""`pocketglm bench`: speed, load time and memory."""

from __future__ import annotations

from typing import Annotated

import typer

from pocketglm.cli import console, options
from pocketglm.cli.progress import progress_bar
from pocketglm.cli.sizes import format_size


def bench(
    package: options.PackageArgument,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after it.")] = 32,
    sequences: Annotated[int, typer.Option(min=1, help="Sequences decoded together.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
    memory: options.MemoryOption = None,
    backend: options.BackendOption = None,
    json: options.JsonOption = False,
) -> None:
    """Measure speed, load time and peak memory.

    Prefill and decode run over tokens of a real text.
    """
    from pocketglm.generate.bench import BenchSettings
    from pocketglm.generate.bench import bench as measure

    settings = BenchSettings(prompt_tokens, new_tokens, sequences, rounds)
    with progress_bar("measuring") as update:
        result = measure(
            package, settings, engine=engine, threads=threads, memory=memory, backend=backend, progress=update
        )
    if json:
        console.report(result.to_dict())
        return
    together = f", {result.sequences} sequences together" if result.sequences > 1 else ""
    console.answer(
        console.pairs(
            [
                ("engine", result.engine),
                ("load", f"{result.load_s:.2f} s"),
                ("prefill", f"{result.prefill_tps:.1f} tokens/s ({result.prompt_tokens} tokens)"),
                ("decode", f"{result.decode_tps:.1f} tokens/s ({result.new_tokens} tokens{together})"),
                ("peak memory", format_size(result.peak_rss_bytes)),
            ]
        )
    )
