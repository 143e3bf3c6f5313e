"""A conversion killed with SIGKILL at random moments always ends in the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketglm.convert.random_checkpoint import ChatGLMSize, write_random_checkpoint
from pocketglm.package.verify import verify_package

KILLS = 10

PROGRAM = """
import sys
from pathlib import Path
from pocketglm.convert import ConvertSettings, convert
print("ready", flush=True)
convert(sys.argv[1], sys.argv[2], ConvertSettings(resume=True))
"""


def start(source: Path, output: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source), str(output)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> int:
    process.communicate()
    return process.returncode


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a conversion takes a few hundred milliseconds."""
    size = ChatGLMSize(blocks=6, hidden=512, heads=8, vocabulary=8000, shards=3)
    return write_random_checkpoint(tmp_path_factory.mktemp("kill") / "source", size)


def test_killed_conversions_end_in_the_same_bytes(source: Path, tmp_path: Path) -> None:
    process = start(source, tmp_path / "whole")
    began = time.monotonic()
    assert finish(process) == 0
    duration = time.monotonic() - began
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    moments = random.Random(4)
    killed = 0
    while killed < KILLS:
        output = tmp_path / f"killed-{killed}"
        while True:  # a resumed conversion may be killed as well
            process = start(source, output)
            time.sleep(moments.uniform(0, duration))
            process.send_signal(signal.SIGKILL)
            if finish(process) == 0 or output.exists():  # it was done, or had only to exit
                break
            killed += 1
        assert {path.name: path.read_bytes() for path in output.iterdir()} == expected
        assert not output.with_name(output.name + ".partial").exists()
        verify_package(output)
        shutil.rmtree(output)
