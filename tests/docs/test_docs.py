"""The documentation is executed: every command and program in the pages runs, every link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from docs.markdown import PAGES, ROOT, Block, anchors, blocks, links
from docs.not_run import EXACT, check_line, reason_not_to_run
from docs.stand_ins import GGUF, write_stand_ins

EXECUTED = tuple(
    page
    for page in PAGES
    if page.parent.name == "guides" or page.name in ("README.md", "CONTRIBUTING.md", "mnn.md")
)
PACKAGE = "smollm2-int4"
"""The package of the first guide, which other pages start from."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins, made once."""
    folder = tmp_path_factory.mktemp("models")
    write_stand_ins(folder)
    done = run_shell(f"pocketglm convert {GGUF} -o {PACKAGE} --group 32", folder)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def page_folder(models: Path, tmp_path: Path) -> Path:
    """A folder of one page's own with the stand-ins in it."""
    return Path(shutil.copytree(models, tmp_path / "work"))


def run_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would, without a network, terminal, or the user's own folders."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **{
            name: value for name, value in os.environ.items() if name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")
        },
        "PATH": path,
        "HOME": str(folder.parent),
        "POCKETGLM_CACHE": str(folder.parent / "cache"),
        "COLUMNS": "200",
        "PYTHONUTF8": "1",
        "PIP_NO_INDEX": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def command_lines(block: Block) -> Iterator[str]:
    yield from (line for line in block.text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("page", EXECUTED, ids=name_of)
def test_commands_and_programs_run(page: Path, page_folder: Path) -> None:
    found = list(blocks(page))
    if any(f"-o {PACKAGE} " in block.text for block in found):
        shutil.rmtree(page_folder / PACKAGE)  # the page makes it
    for language, group in groupby(found, key=lambda block: block.language):
        together = list(group)
        if language == "python":
            run_python(page, together, page_folder)
        for block in together:
            if block.file:
                (page_folder / block.file).write_text(block.text, "utf-8")
            elif language == "shell":
                run_block(page, block, page_folder)
            elif language == "console":
                run_console(page, block, page_folder)


def run_block(page: Path, block: Block, folder: Path) -> None:
    to_run = []
    for line in command_lines(block):
        if reason_not_to_run(line):
            check_line(line)
        else:
            to_run.append(line)
    done = run_shell("\n".join(to_run), folder)
    assert done.returncode == 0, f"{name_of(page)}, line {block.line}:\n{block.text}\n{done.stdout}"


def run_python(page: Path, together: list[Block], folder: Path) -> None:
    """Blocks that follow one another are one program."""
    program = folder / "program.py"
    program.write_text("\n".join(block.text for block in together), "utf-8")
    done = run_shell("python -W error program.py", folder)
    assert done.returncode == 0, f"{name_of(page)}, line {together[0].line}:\n{done.stdout}"


def run_console(page: Path, block: Block, folder: Path) -> None:
    """`$` lines are commands; what follows is all they print, `...` standing for anything."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        done = run_shell(command, folder)
        pattern = ".*".join(map(re.escape, expected.strip().split("...")))
        where = f"{name_of(page)}, line {block.line}:\n$ {command}\n{done.stdout}"
        assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), where
        assert (done.returncode != 0) == ("error" in done.stdout.lower()), where


def test_every_reason_is_needed() -> None:
    """The list of commands that are not run names only commands that are in the pages."""
    shown = {
        line
        for page in EXECUTED
        for block in blocks(page)
        if block.language == "shell"
        for line in command_lines(block)
    }
    assert set(EXACT) <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link}: no such file"
        assert path.is_relative_to(ROOT), f"{link} leads out of the project"
        if anchor:
            assert anchor in anchors(path), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_is_linked(page: Path) -> None:
    """From the README one gets everywhere."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        here = waiting.pop()
        if here in reached or here.suffix != ".md":
            continue
        reached.add(here)
        targets = [link.partition("#")[0] for link in links(here) if "://" not in link]
        waiting += [(here.parent / target).resolve() for target in targets if target]
    assert page in reached
