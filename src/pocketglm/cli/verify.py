"""`pocketglm verify`: is every byte of a package what it should be?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from pocketglm.cli import console
from pocketglm.cli.options import JsonOption, PackageArgument
from pocketglm.cli.progress import progress_bar
from pocketglm.cli.sizes import format_size
from pocketglm.errors import PocketGLMError


def verify(package: PackageArgument, json: JsonOption = False) -> None:
    """Check every byte of a package.

    Sizes, SHA-256 of all files, headers, padding, and that all values are finite.
    """
    from pocketglm.package.verify import verify_package

    try:
        with progress_bar("checking") as update:
            found = verify_package(package, update)
    except PocketGLMError as error:
        if not json:
            raise
        console.report({"ok": False, "error": str(error), "hint": error.hint})
        raise typer.Exit(error.exit_code) from error
    if json:
        console.report({"ok": True, **asdict(found)})
    else:
        console.answer(
            f"{package} is sound: {found.files} files, {found.tensors} tensors, {format_size(found.bytes)}"
        )
