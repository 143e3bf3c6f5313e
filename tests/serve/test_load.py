"""Many clients that come and go; the whole of it is `bench/server.py --load 60`."""

from __future__ import annotations

import gc
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

from pocketglm.serve.settings import BatchSettings
from serve.event_loops import run
from serve.running import running

SECONDS = 3.0
CLIENTS = 64


def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "server.py"
    spec = importlib.util.spec_from_file_location("bench_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_server"] = module
    spec.loader.exec_module(module)
    return module


def test_many_clients_that_come_and_go(causal_path: Path) -> None:
    module = benchmark()
    with running(causal_path, batch=BatchSettings(running=8, waiting=16)) as server:
        streams: list[object] = []
        port = int(server.url.rsplit(":", 1)[1])
        run(module.visits(port, SECONDS, CLIENTS, streams))
        statuses = {stream.status for stream in streams}  # type: ignore[attr-defined]
        assert 200 in statuses
        assert statuses <= {200, 429}
        assert {p for stream in streams for p in stream.problems} == set()  # type: ignore[attr-defined]
        assert any(stream.left for stream in streams)  # type: ignore[attr-defined]
        unfinished = [s for s in streams if s.status == 200 and not s.done and not s.left]  # type: ignore[attr-defined]
        assert unfinished == []
        for _ in range(100):
            load = server.engine.load_now
            if load.running == load.waiting == 0:
                break
            time.sleep(0.05)
        assert (load.running, load.waiting) == (0, 0)
        assert server.engine._outcomes == {}
        gc.collect()
        stage = server.model.stages[0]
        assert len(stage._caches) == len(server.model.prefixes.kept)  # type: ignore[attr-defined]
