"""The page over the app's own host: Java and the engine, as in the app, with Android left out."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

from android.java_process import DesktopHost, Message
from web.phone.page_host import PAGE, PageHost

TIMEOUT = 60.0


class DesktopPageHost(PageHost):
    """Runs until `close`. `app` is the host's program, `said` all that it has told the page."""

    def __init__(self, classes: Path, folder: Path, engine: Sequence[str], page: Path = PAGE) -> None:
        self.app = DesktopHost(classes, folder, engine)
        self.said: list[Message] = []
        self._resources: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self._writing = threading.Lock()
        self._asking = threading.Lock()
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()
        super().__init__(page)

    def receive(self, text: str) -> None:
        self.say(text)

    def say(self, line: str) -> None:
        with self._writing:
            self.app.send(line)

    def set(self, **settings: object) -> None:
        """What the phone is like from now on; see DesktopPlatform.java."""
        self.say(json.dumps({"desktop": settings}))

    def page_opened(self) -> None:
        self.set(opened=True)

    def resource(self, path: str) -> tuple[int, bytes]:
        with self._asking:
            self.say(json.dumps({"resource": path}))
            return self._resources.get(timeout=TIMEOUT)

    def engine(self) -> psutil.Process:
        """The engine's process."""
        (child,) = psutil.Process(self.app.process.pid).children()
        return child

    def _pass_on(self) -> None:
        """Everything that the host says, until it ends."""
        while (message := self.app.take()) is not None:
            if "resource" in message:
                self._resources.put((message["status"], message["body"].encode()))
            else:
                self.said.append(message)
                self.emit(json.dumps(message))

    def close(self) -> None:
        if self.app.process.poll() is not None:
            return
        super().close()
        with self.app:
            pass  # ends it, and looks at what it leaves
        self._reader.join(TIMEOUT)
