"""`pocketglm convert`: from a checkpoint to a package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketglm.cli import console
from pocketglm.cli.options import JsonOption
from pocketglm.cli.progress import progress_bar
from pocketglm.cli.sizes import format_size
from pocketglm.plan.machine import available_cpus

if TYPE_CHECKING:
    from pocketglm.convert import ConvertSettings


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A checkpoint: a directory, a .gguf file, or a model's name on Hugging Face or ModelScope.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The package to make.")],
    bits: Annotated[int, typer.Option(help="Bits of a weight: 32, 16, 8 or 4.")] = 4,
    group: Annotated[
        int, typer.Option(help="Weights that share a scale: 32, 64, 128, or 0 for a whole row.")
    ] = 64,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Quantize without zero points.")] = False,
    head_bits: Annotated[
        int | None, typer.Option(help="Bits of the output projection; as --bits if left out, but at least 8.")
    ] = None,
    quant_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with settings for single tensors.")
    ] = None,
    keep_tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep only these tokens of the vocabulary.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished conversion.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a package that is there already.")
    ] = False,
    no_search: Annotated[
        bool, typer.Option("--no-search", help="Round to nearest, without a search for the best scales.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave out the fidelity report.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to convert with; all cores if left out.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Convert a checkpoint to a package.

    Reads one tensor at a time, so the memory needed does not depend on the model's size. A conversion
    that was stopped goes on with --resume.
    """
    from pocketglm.convert import ConvertSettings
    from pocketglm.quantize.formats import WeightFormat
    from pocketglm.quantize.settings import QuantizeSettings, head_format

    block = WeightFormat(bits, group, symmetric, not no_search)  # type: ignore[arg-type]  # checked there
    quantize = QuantizeSettings(block, head_format(block, head_bits))
    if quant_config is not None:
        quantize = quantize.with_rules(quant_config)
    settings = ConvertSettings(
        quantize=quantize,
        keep_tokens=keep_tokens,
        resume=resume,
        overwrite=overwrite,
        report=not no_report,
        threads=threads or available_cpus(),
    )
    summary = run_conversion(source, output, settings)
    if json:
        console.report(summary)
    else:
        show_summary(summary)


def run_conversion(source: str | Path, output: Path, settings: ConvertSettings) -> dict[str, Any]:
    """Convert with a progress bar. Returns what there is to report."""
    from pocketglm.convert import convert as convert_checkpoint
    from pocketglm.package.reader import read_manifest
    from pocketglm.package.writer import partial_of

    began = time.perf_counter()
    try:
        with progress_bar("converting") as update:
            convert_checkpoint(source, output, settings, lambda p: update(p.step, p.done, p.total))
    except KeyboardInterrupt:
        if partial_of(output).is_dir():
            console.note("finished parts are kept: continue with --resume")
        raise
    seconds = time.perf_counter() - began
    manifest = read_manifest(output)
    read = sum(file["size"] for file in manifest.source.get("files", []))
    return {
        "path": str(output),
        "seconds": round(seconds, 2),
        "source_bytes": read,
        "source_mb_per_s": round(read / seconds / 1e6, 1),
        "package_bytes": sum(entry.size for entry in manifest.files.values()),
        "fidelity": (manifest.fidelity or {}).get("model"),
        "tokenizer": "tokenizer.json" in manifest.files,
    }


def show_summary(summary: dict[str, Any]) -> None:
    size, source = format_size(summary["package_bytes"]), format_size(summary["source_bytes"])
    console.note(
        f"{summary['path']}: {size} from {source} in {summary['seconds']:.1f} s "
        f"({summary['source_mb_per_s']:.0f} MB/s)"
    )
    if not summary["tokenizer"]:
        console.note("the checkpoint has no tokenizer files, so the package takes and gives token ids only")
    if fidelity := summary["fidelity"]:
        console.note(
            f"against the original on a short text: KL divergence {fidelity['kl_divergence']}, "
            f"same likeliest next token {fidelity['top1_agreement']:.0%}"
        )
