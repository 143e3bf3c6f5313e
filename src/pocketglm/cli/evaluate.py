"""`pocketglm eval`: perplexity of a text, and divergence from the original model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketglm.cli import console, options
from pocketglm.cli.placing import placement_of
from pocketglm.cli.progress import progress_bar
from pocketglm.errors import InputError

if TYPE_CHECKING:
    from pocketglm.generate.model import Model


def evaluate(
    package: options.PackageArgument,
    text: Annotated[Path, typer.Option(metavar="FILE", help="A UTF-8 text.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The original checkpoint, or another package: adds KL divergence and top-1 agreement.",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=2, help="Tokens the model sees at once; at most 1024 if left out.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens from one window to the next; half a window if left out."),
    ] = None,
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
    """Measure how well a package predicts a text.

    With --against, the same text goes through the original weights in float32 as well, converted for
    the time of the comparison and streamed from disk.
    """
    from pocketglm.generate.model import load
    from pocketglm.generate.perplexity import evaluate as measure

    asked = {"memory": memory, "context": context, "kv": kv, "backend": backend, "threads": threads}
    placement = placement_of(package, place, gpu_layers, gpu_memory, **asked)
    with ExitStack() as stack:
        loading = load(package, engine, threads, memory, backend, kv=kv, context=context, placement=placement)
        model = stack.enter_context(loading)
        tokens = model.tokenizer.encode(read_text(text))
        reference = (
            None
            if against is None
            else stack.enter_context(_reference(stack, against, model, threads, memory))
        )
        with progress_bar("evaluating") as update:
            result = measure(
                model,
                tokens,
                reference=reference,
                window=window,
                stride=stride,
                progress=lambda done, total: update("", done, total),
            )
    if json:
        console.report({"engine": model.engine_name, "placement": model.place_text, **result.to_dict()})
    else:
        console.answer(console.pairs(_rows(result.to_dict())))


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error})", where=path) from None


def _reference(stack: ExitStack, source: str, model: Model, threads: int | None, memory: int | None) -> Model:
    """The original model on the reference engine, its files removed when `stack` closes."""
    from pocketglm.convert.float32_package import float32_package
    from pocketglm.generate.model import load
    from pocketglm.package.manifest import MANIFEST_FILE

    if (Path(source) / MANIFEST_FILE).is_file():
        return load(source, "reference", threads, memory)
    with progress_bar("reading the original") as update:
        manager = float32_package(
            source, model.package.manifest, lambda p: update(p.step, p.done, p.total), threads
        )
        original = stack.enter_context(manager)
    return load(original, "reference", threads, memory)


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("perplexity", f"{result['perplexity']:.4f} ({result['tokens']} tokens, {result['windows']} windows)")
    ]
    if result["kl"] is not None:
        change = result["perplexity"] / result["reference_perplexity"] - 1
        rows += [
            ("original's", f"{result['reference_perplexity']:.4f} ({change:+.2%})"),
            ("KL divergence", f"{result['kl']:.6f} nats a token"),
            ("same likeliest token", f"{result['top1']:.2%}"),
        ]
    return rows
