"""The command `pocketglm`: its subcommands, its errors and its exit codes.

Exit codes: 0 done; 1 unexpected error; 2 wrong argument, setting or request; 3 the checkpoint cannot be
read; 4 the package is damaged; 5 too little memory or disk; 6 the engine cannot run the package; 7 an
optional dependency is missing; 130 stopped by Ctrl-C; 141 the reader of standard output went away.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pocketglm import __version__
from pocketglm.cli import (
    bench,
    chat,
    console,
    convert,
    demo,
    evaluate,
    export,
    inspect,
    plan,
    run,
    serve,
    verify,
)
from pocketglm.errors import PocketGLMError

INTERRUPTED, BROKEN_PIPE, UNEXPECTED = 130, 141, 1
DEBUG = "--debug"

EPILOG = (
    "Exit codes: 0 done, 1 unexpected error, 2 wrong input, 3 checkpoint, 4 package, 5 memory or disk, "
    "6 engine, 7 missing extra, 130 stopped by Ctrl-C."
)

UsageProblem: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What typer raises for wrong arguments. It stands in `click` or, in newer versions, in typer itself."""


class Commands(TyperGroup):
    """Turns errors into one line, a hint and an exit code; with `--debug`, anywhere in the line, lets
    them through with their traceback."""

    _debug = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        self._debug = DEBUG in args[:end]
        return super().parse_args(ctx, [arg for i, arg in enumerate(args) if arg != DEBUG or i >= end])

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort, UsageProblem):
            raise
        except BaseException as error:
            if self._debug and not isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
                raise
            raise typer.Exit(_exit_code(error)) from error


def _exit_code(error: BaseException) -> int:
    """Tell the user about an error and choose the exit code."""
    if isinstance(error, PocketGLMError):
        console.show_error(error)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        console.quiet_stdout()
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        console.note("stopped")
        return INTERRUPTED
    if not isinstance(error, Exception):
        raise error
    shown = PocketGLMError(
        f"unexpected {type(error).__name__}: {error}",
        hint="run the command again with --debug, and report what it prints",
    )
    console.show_error(shown)
    return UNEXPECTED


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.answer(f"pocketglm {__version__}")
        raise typer.Exit


@app.callback()
def pocketglm(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks. May stand anywhere.")] = False,
) -> None:
    """Large language models in little memory: convert, check and run them."""


app.command("convert")(convert.convert)
app.command("inspect")(inspect.inspect)
app.command("plan")(plan.plan)
app.command("verify")(verify.verify)
app.command("run")(run.run)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("eval")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("demo")(demo.demo)


def main() -> None:
    """Entry point of the installed command."""
    console.use_utf8()
    app(prog_name="pocketglm")
