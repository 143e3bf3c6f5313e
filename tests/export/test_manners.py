"""Exporting and running open no connection, start no process and print nothing of their own.

Each test runs a small program in a fresh interpreter, so that an audit hook sees everything from the
first import on. Native code is out of the hook's sight: it is watched from outside, by a network
namespace without a way out and by the children the system has counted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.mnn.graphs import need_mnn
from engine.tiny_packages import random_tensors, write_package

WATCH = """
import sys
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn")
def watch(event, arguments):
    if event.startswith(FORBIDDEN):
        raise SystemExit(f"forbidden: {event} {arguments}")
sys.addaudithook(watch)
"""
EXPORT = """
import sys
from pocketglm.export.mnn import export_graphs
export_graphs(sys.argv[1])
"""
RUN = """
import pocketglm
with pocketglm.load(sys.argv[1], engine="mnn", threads=1) as model:
    print(*model.generate([1, 2, 3], max_new_tokens=4))
"""
NO_CHILDREN = """
import resource
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss == 0, "a child process was started"
"""
ONLY_RUN = """
for name in ("torch", "onnx", "_tools", "transformers"):
    sys.modules[name] = None
"""


@pytest.fixture(autouse=True)
def _needs_mnn() -> None:
    need_mnn()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(
        tmp_path / "package", SPECS["plain"], random_tensors(SPECS["plain"]), FORMATS["int4-g32"]
    )


def run(program: str, package: Path, *prefix: str) -> str:
    """Standard output of a program; the test fails where the program does."""
    result = subprocess.run(
        [*prefix, sys.executable, "-c", program, str(package)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_no_connection_and_no_process(package: Path) -> None:
    posix = sys.platform != "win32"
    output = run(WATCH + EXPORT + RUN + NO_CHILDREN * posix, package)
    assert len(output.split()) == 4, "standard output holds more than the answer"


def test_the_hook_catches_what_it_should(package: Path) -> None:
    for forbidden in ("import socket; socket.socket()", "import os; os.system('true')"):
        with pytest.raises(AssertionError, match="forbidden"):
            run(WATCH + forbidden, package)


def test_works_without_any_network(package: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare program here")
    if subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a test make a network namespace")
    assert len(run(EXPORT + RUN, package, unshare, "-rn").split()) == 4


def test_running_needs_neither_torch_nor_the_converter(package: Path) -> None:
    run(EXPORT, package)
    assert len(run(WATCH + ONLY_RUN + RUN, package).split()) == 4


def test_importing_the_exporter_imports_nothing_heavy(package: Path) -> None:
    check = (
        "import sys, pocketglm.export.mnn, pocketglm.engine.mnn.engine\n"
        "heavy = {'torch', 'onnx', 'MNN', '_tools', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert run(check, package) == ""
