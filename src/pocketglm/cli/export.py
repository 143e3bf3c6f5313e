"""`pocketglm export`: a package in a form that other programs take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketglm.cli import console
from pocketglm.cli.options import JsonOption, PackageArgument
from pocketglm.cli.progress import Update, progress_bar
from pocketglm.errors import InputError


def export(
    package: PackageArgument,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="mnn: MNN graphs beside the weights; mnn-llm: a directory for MNN's apps; zip: one file.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="OUT", help="What to make; with mnn, the package itself if left out."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a package for other programs. The weights are taken as they are, byte for byte."""
    if format_name not in FORMATS:
        raise InputError(f"unknown format {format_name!r}", hint=f"choose one of: {', '.join(FORMATS)}")
    with progress_bar("exporting") as update:
        summary = FORMATS[format_name](package, output, update)
    if json:
        console.report({"format": format_name, **summary})
        return
    for text in summary.get("notes", ()):
        console.note(f"note: {text}")
    console.answer(str(summary["path"]))


def _mnn(package: Path, output: Path | None, update: Update) -> dict[str, Any]:
    from pocketglm.export.mnn import export_graphs

    return {"path": str(export_graphs(package, output, update))}


def _mnn_llm(package: Path, output: Path | None, update: Update) -> dict[str, Any]:
    from pocketglm.export.mnn_llm.directory import export_mnn_llm

    made = export_mnn_llm(package, _needed(output, "directory"), update)
    return {
        "path": str(made.path),
        "bytes": made.size,
        "check": made.check.to_dict(),
        "notes": list(made.notes),
    }


def _zip(package: Path, output: Path | None, update: Update) -> dict[str, Any]:
    from pocketglm.export.archive import export_zip

    path = export_zip(package, _needed(output, "file"), update)
    return {"path": str(path), "bytes": path.stat().st_size}


def _needed(output: Path | None, kind: str) -> Path:
    if output is None:
        raise InputError("this format needs -o", hint=f"name the {kind} to make")
    return output


FORMATS: dict[str, Callable[[Path, Path | None, Update], dict[str, Any]]] = {
    "mnn": _mnn,
    "mnn-llm": _mnn_llm,
    "zip": _zip,
}
"""What there is to tell of an export, as plain JSON types; `path` always, `notes` where there are any."""
