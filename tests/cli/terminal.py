"""The command on a pseudo-terminal, as a user has it before them."""

from __future__ import annotations

import os
import subprocess
import sys
import time


class Terminal:
    """`seen` is the output that no `wait_for` has taken yet."""

    def __init__(self, *arguments: object, **settings: str) -> None:
        import fcntl
        import termios

        self._master, slave = os.openpty()
        environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pocketglm", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Output up to and including `text`, which is taken from what has been seen."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen[-500:]!r}"
            ended = self.process.poll() is not None
            if not self._read():
                assert not ended, self.seen[-500:]
                time.sleep(0.01)
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def read_to_end(self) -> str:
        """All output until the program ends."""
        while self.process.poll() is None or self._read():
            self._read()
            time.sleep(0.01)
        return self.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        """Take what is there; False if there is nothing now."""
        try:
            self.seen += os.read(self._master, 65536).decode("utf-8", "replace")
        except OSError:  # nothing yet, or the other side is closed
            return False
        return True
