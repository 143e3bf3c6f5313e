"""A memory limit holds for the whole process: planned before loading, measured, and under a hard limit."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hard_limit
import pytest

from generate.tiny_models import BEGIN, CAUSAL, PREFIXED, write_tiny
from pocketglm.engine.contract import EngineOptions
from pocketglm.engine.native.memory_plan import cache_bytes, plan_memory, work_bytes
from pocketglm.errors import EngineError, InputError
from pocketglm.generate.memory_budget import anonymous_bytes, plan_budget, resident_bytes
from pocketglm.generate.model import load
from pocketglm.plan.kv_cache import kv_bytes_per_token
from pocketglm.plan.python_memory import GPU_ENGINE_BYTES, LEAST_CONTEXT, rows_at_once
from pocketglm.quantize.formats import WeightFormat

MIB = 1 << 20
LIMIT = 160 * MIB
"""Less than half of what LARGE takes without a limit (326 MB of weights beside Python), and 20 MiB of room:
Python holds some pages more or less from one machine to another."""
LARGE = replace(CAUSAL, hidden_size=512, intermediate_size=8192, num_blocks=12)

CHILD = """
import json, sys
import pocketglm
from pocketglm.generate.bench import peak_rss_bytes
path, memory = sys.argv[1], int(sys.argv[2])
with pocketglm.load(path, "native", threads=2, memory=memory or None) as model:
    prompt = [1, 2, 3, 4] * (model.context // 4 - 8)
    tokens = list(model.generate(prompt[:600], 12))
    usage = model.stages[0].usage()
    print(json.dumps({"tokens": tokens, "peak": peak_rss_bytes(), "context": model.context, **usage}))
"""

PLACED_CHILD = """
import json, sys
import torch, pocketglm
from pocketglm.generate.bench import peak_rss_bytes
from pocketglm.generate.memory_budget import resident_bytes
path, text, more = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.zeros(1).add_(1)
limit = resident_bytes() + more
settings = {"placement": text, "backend": "cpu", "threads": 2, "memory": limit if more else None}
with pocketglm.load(path, context=700, **settings) as model:
    tokens = list(model.generate(([1, 2, 3, 4] * 150)[:590], 12))
print(json.dumps({"tokens": tokens, "peak": peak_rss_bytes(), "limit": limit}))
"""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("large") / "p", LARGE, weight_format=WeightFormat(16))


def child_command(path: Path, memory: int) -> list[str]:
    return [sys.executable, "-c", CHILD, str(path), str(memory)]


def run_child(path: Path, memory: int) -> dict[str, object]:
    made = subprocess.run(child_command(path, memory), capture_output=True, text=True, check=True)
    return dict(json.loads(made.stdout))


@needs_linux
def test_the_limit_holds_and_changes_no_token(large: Path) -> None:
    free, limited = run_child(large, 0), run_child(large, LIMIT)
    assert limited["tokens"] == free["tokens"]
    assert int(str(free["peak"])) > LIMIT  # else the limit would be no limit
    assert int(str(limited["peak"])) <= LIMIT
    assert int(str(limited["streamed_bytes"])) > 0
    assert free["streamed_bytes"] == 0


@needs_linux
def test_the_stages_of_a_placement_keep_to_it_together(large: Path) -> None:
    """Two native stages with a part between them that is on a GPU, as far as they know. What that part needs
    to compute is no GPU's here, so the limit has room for it."""
    free, limited = (
        json.loads(subprocess.run(
            [sys.executable, "-c", PLACED_CHILD, str(large), text, str(more)],
            capture_output=True, text=True, check=True,
        ).stdout)
        for text, more in (("ram:0-3,gpu:4,ram:5-11", 0), ("disk:0-3,gpu:4,disk:5-11", 280 * MIB))
    )  # fmt: skip
    assert limited["tokens"] == free["tokens"]
    assert limited["peak"] <= limited["limit"]
    assert free["peak"] > free["limit"] + 280 * MIB  # else the limit would be no limit


@pytest.mark.skipif(not hard_limit.available(), reason="no cgroup can be made here")
def test_runs_where_the_kernel_kills_what_takes_more(large: Path) -> None:
    hog = "b = bytearray(300 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1"
    assert hard_limit.run_limited([sys.executable, "-c", hog], LIMIT).code != 0  # the limit is a hard one
    made = hard_limit.run_limited(child_command(large, LIMIT), LIMIT)
    assert made.code == 0, made.stderr
    assert json.loads(made.stdout)["tokens"] == run_child(large, 0)["tokens"]
    assert made.peak <= LIMIT


@needs_linux
def test_the_least_that_is_named_works(large: Path) -> None:
    small = subprocess.run(child_command(large, 64 * MIB), capture_output=True, text=True, check=False)
    assert "memory limit of 64 MiB is too small, at least" in small.stderr
    least = int(small.stderr.split("at least ")[1].split(" MiB")[0])
    assert run_child(large, (least + 4) * MIB)["context"]  # a process holds some pages more or less
    with pytest.raises(subprocess.CalledProcessError):
        run_child(large, (least - 16) * MIB)


def test_the_refusal_lists_what_takes_the_memory(causal_path: Path) -> None:
    with pytest.raises(
        EngineError, match=r"for what the process holds.*the head.*KV caches of 500 tokens"
    ) as e:
        load(causal_path, "native", memory=1 * MIB, context=500)
    assert "context" in str(e.value.hint)


def test_the_context_follows_from_the_limit() -> None:
    token = kv_bytes_per_token(CAUSAL, "float16")
    assert plan_budget(CAUSAL, "float16", 4 * token * 700, None, 1).context == 700
    assert plan_budget(CAUSAL, "int8", 4 * token * 500, None, 1).context == 800
    assert plan_budget(CAUSAL, "float16", 1, None, 1).context == LEAST_CONTEXT
    assert plan_budget(CAUSAL, "float16", 1 << 40, None, 1).context == CAUSAL.max_context
    assert plan_budget(CAUSAL, "float16", 1, 300, 1).context == 300
    assert plan_budget(CAUSAL, "float16", 1 << 40, 10**6, 1).context == CAUSAL.max_context


def test_what_is_set_aside_grows_with_its_causes() -> None:
    plain = plan_budget(CAUSAL, "float16", 1 << 30, 100, 1).taken
    assert plain > resident_bytes()
    assert plan_budget(CAUSAL, "float16", 1 << 30, 100, 40).taken > plain
    assert (
        plan_budget(CAUSAL, "float16", 1 << 30, 100, 1, uses_gpu=True).taken > plain + GPU_ENGINE_BYTES // 2
    )
    assert rows_at_once(CAUSAL, 1000) == 512
    assert rows_at_once(PREFIXED, 1000) == 1000


@pytest.mark.parametrize("kind", ["causal", "prefixed"])
@pytest.mark.parametrize("kv", ["float32", "float16", "int8"])
def test_plan_covers_what_the_engine_takes(
    causal_path: Path, prefixed_path: Path, kind: str, kv: str
) -> None:
    """Caches and activations of a session as long as the context, against the engine's own count."""
    path = causal_path if kind == "causal" else prefixed_path
    with load(path, "native", threads=2, kv=kv, context=900, lookup=0) as model:  # type: ignore[arg-type]
        prefix = model.spec.prefix_tokens
        ids = [1, 2, 3] * 299 + ([1, 2] if prefix is None else [prefix.gmask, prefix.sop])
        with model.session() as session:
            session.forward(ids, last_only=True)
            session.forward([5], last_only=True)
            usage = model.stages[0].usage()  # type: ignore[attr-defined]
        options = EngineOptions(threads=2, context=900)
        assert usage["cache_bytes"] <= cache_bytes(model.package, model.spec.num_blocks, kv, 900)  # type: ignore[arg-type]
        assert usage["buffer_bytes"] <= work_bytes(model.package, range(model.spec.num_blocks), options, 900)
        assert plan_memory(model.package, range(3), "float16", options).limit == 0  # no limit, no plan


def test_a_limited_context_is_refused_with_its_reason(causal_path: Path) -> None:
    with load(causal_path, "native", context=50) as model:
        assert model.context == 50
        with (
            model.session() as session,
            pytest.raises(InputError, match="context was limited to 50") as error,
        ):
            session.forward([BEGIN] * 51)
        assert "--context" in str(error.value.hint)
        assert len(list(model.generate([BEGIN] * 45, None))) == 5


@needs_linux
def test_anonymous_memory_counts_what_no_file_backs() -> None:
    before = anonymous_bytes()
    # A mapping of its own: a bytearray may lie in memory that the process held before
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert anonymous_bytes() - before > 32 * MIB
        assert resident_bytes() > anonymous_bytes()
