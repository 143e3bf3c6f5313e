from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from pocketglm.engine.mnn.native_output import captured_output

posix = pytest.mark.skipif(sys.platform == "win32", reason="the C library is reached in another way")


@posix
def test_native_lines_are_captured(capfd: pytest.CaptureFixture[str]) -> None:
    library = ctypes.CDLL(None)
    library.puts(b"before")
    with captured_output() as printed:
        library.puts(b"held back by the C library")
        os.write(1, b"written at once\n")
        print("from Python", file=sys.__stdout__)
    library.puts(b"after")
    library.fflush(None)
    assert sorted(printed.text.split("\n")[:-1]) == [
        "from Python",
        "held back by the C library",
        "written at once",
    ]
    assert capfd.readouterr().out == "before\nafter\n"


def test_descriptor_is_restored_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="stop"), captured_output():
        raise ValueError("stop")
    os.write(1, b"still here\n")
    assert capfd.readouterr().out == "still here\n"


@posix
def test_closed_standard_output() -> None:
    code = (
        "import os; os.close(1)\n"
        "from pocketglm.engine.mnn.native_output import captured_output\n"
        "with captured_output() as printed: os.write(1, b'x')\n"
        "assert printed.text == 'x'\n"
        "try: os.fstat(1)\n"
        "except OSError: pass\n"
        "else: raise SystemExit('descriptor 1 was left open')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
