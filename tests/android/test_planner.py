"""The memory rule: Python's sizes, plans that keep to the free memory, engines that keep to their plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from android.java_process import DesktopHost, Message, Probe
from android.packages import id_of
from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from executable.engine_process import EngineProcess
from pocketglm.package.manifest import Manifest
from pocketglm.package.reader import Package
from pocketglm.plan.kv_cache import KVType
from pocketglm.plan.native_memory import buffer_bytes, cache_bytes, head_file_bytes, work_bytes

GIB, MIB = 1 << 30, 1 << 20
OTHER_BUFFERS = PROCESS = 16 * MIB
"""What MemorySizes.java adds for the head's activations, and for the process."""

CHATGLM = {
    "family": "chatglm",
    "vocab_size": 130528,
    "hidden_size": 4096,
    "num_blocks": 28,
    "num_heads": 32,
    "num_kv_heads": 32,
    "head_dim": 128,
    "intermediate_size": 16384,
    "max_context": 2048,
    "mlp": "gelu_tanh",
    "positions": "glm_2d",
}
BLOCK, HEAD = 113_000_000, 551_000_000
WEIGHTS = 28 * BLOCK + HEAD
"""About those of ChatGLM-6B in 4 bits with a head in 8."""


def manifest_of(model: dict[str, Any], block: int = BLOCK, head: int = HEAD) -> str:
    sizes = {f"block_{i:02d}.mnn.weight": block for i in range(model["num_blocks"])}
    sizes |= {"head.mnn.weight": head, "embedding.bf16": 2 * model["vocab_size"] * model["hidden_size"]}
    files = {name: {"size": size, "sha256": "0" * 64} for name, size in sizes.items()}
    manifest = {"format": "pocketglm-package", "version": 1, "model": model, "files": files}
    return json.dumps({**manifest, "embedding": {"dtype": "bfloat16"}}).encode().hex()


def plan(probe: Probe, manifest: str, free: float, total: float = 8 * GIB, **wish: Any) -> Message:
    question = {"context": None, "kv": None, "threads": None, "memory": None, "given": 0, **wish}
    found = probe.ask("plan", hex=manifest, free=int(free), total=int(total), **question)["answer"]
    assert found["reason"] == (None if found["fits"] else "memory")
    assert found["fits"] == (found["needed"] <= found["free"])
    return dict(found)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kv", ["float16", "int8"])
@pytest.mark.parametrize(("context", "threads"), [(100, 1), (512, 2), (1000, 3), (4096, 1)])
def test_sizes_are_those_of_python(
    host: DesktopHost, tmp_path: Path, spec: str, kv: KVType, context: int, threads: int
) -> None:
    settings = replace(SPECS[spec], max_context=4096)
    package = write_package(tmp_path / "p", settings, random_tensors(settings), FORMATS["int4-g32"])
    host.set(pick=str(package))
    host.call("packages.import", kind="folder")
    wish = {"context": context, "kv": kv, "threads": threads}
    found = host.call("engine.plan", package=id_of(package), **wish)
    assert wish.items() <= found.items()
    rows_kept = max(0, context - 512) if settings.prefix_tokens is not None else 0
    other = OTHER_BUFFERS + PROCESS + 4 * settings.vocab_size + 4 * rows_kept * settings.hidden_size
    cache = cache_bytes(settings, settings.num_blocks, kv, context)
    assert found["anonymous"] == cache + work_bytes(settings, threads, context) + other
    with Package.open(package) as opened:
        weights = [name for name in opened.manifest.files if name.endswith(".mnn.weight")]
        assert found["weights"] == sum(opened.manifest.files[name].size for name in weights)


def test_less_memory_costs_first_precision_then_context_then_residence(probe: Probe) -> None:
    """From a phone with much memory to one with too little: no plan is better than that of more memory."""
    manifest, found = manifest_of(CHATGLM), []
    for free in range(0, 8 * GIB, 10 * MIB):
        one = plan(probe, manifest, free, 6 * GIB)
        assert (one["threads"], one["weights"]) == (4, WEIGHTS)
        if not one["fits"]:
            assert found == []
            continue
        found.append((not one["streamed"], one["context"], one["kv"] == "float16"))
        in_memory = HEAD if one["streamed"] else WEIGHTS
        assert one["anonymous"] + in_memory <= one["free"] == free - 256 * MIB - 6 * GIB // 16
        assert (one["memory"] is not None) == one["streamed"]
    assert found == sorted(found)
    streamed = {(False, context, False) for context in (512, 1024, 2048)}
    resident = {(True, context, precise) for context in (512, 1024, 2048) for precise in (False, True)}
    assert set(found) == streamed | resident


def test_what_is_asked_for_is_kept(probe: Probe) -> None:
    manifest = manifest_of(CHATGLM)
    for free in (2 * GIB, 4 * GIB, 8 * GIB):
        found = plan(probe, manifest, free, context=1500, kv="float16", threads=7)
        assert (found["context"], found["kv"], found["threads"]) == (1500, "float16", 7)
    assert plan(probe, manifest, 8 * GIB, context=100_000)["context"] == 2048  # the model's own
    limited = plan(probe, manifest, 8 * GIB, memory=3 * GIB)
    assert (limited["memory"], limited["streamed"], limited["fits"]) == (3 * GIB, True, True)
    roomy = plan(probe, manifest, 8 * GIB, memory=7 * GIB)
    assert (roomy["memory"], roomy["streamed"]) == (7 * GIB, False)
    assert plan(probe, manifest, 2 * GIB, memory=7 * GIB)["memory"] < 2 * GIB  # not more than there is


def test_memory_that_will_be_free(probe: Probe) -> None:
    manifest = manifest_of(CHATGLM)
    assert plan(probe, manifest, GIB, given=5 * GIB) == plan(probe, manifest, 6 * GIB)


def test_long_contexts_are_not_chosen_for_streamed_models(probe: Probe) -> None:
    model = {**CHATGLM, "max_context": 131072, "num_kv_heads": 2, "positions": "sequential"}
    assert plan(probe, manifest_of(model), 3 * GIB)["streamed"]
    assert plan(probe, manifest_of(model), 3 * GIB)["context"] == 2048
    assert plan(probe, manifest_of(model), 64 * GIB)["context"] == 131072
    assert plan(probe, manifest_of(model), 3 * GIB, context=8192)["context"] == 8192


def test_the_largest_numbers(probe: Probe) -> None:
    """Nothing runs over, and the answer is no."""
    sizes = ("vocab_size", "num_heads", "num_kv_heads", "intermediate_size", "max_context")
    model = {**CHATGLM, **dict.fromkeys(sizes, 2**24), "head_dim": 1, "num_blocks": 1024}
    manifest = manifest_of(model, 2**47, 2**47)
    assert not plan(probe, manifest, 16 * GIB)["fits"]


BIG = replace(SPECS["plain"], hidden_size=384, intermediate_size=2048, num_blocks=8, max_context=2048)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of several MiB, so that it can be seen whether they stay in memory."""
    return write_package(tmp_path_factory.mktemp("big") / "p", BIG, random_tensors(BIG), FORMATS["float16"])


def taken(host: DesktopHost) -> Message:
    host.call("engine.send", line='{"command":"stats","id":"s"}')
    return dict(json.loads(host.event("engine.line", lambda data: '"id":"s"' in data["line"])["line"]))


def fill(host: DesktopHost, tokens: int) -> None:
    line = json.dumps({"command": "generate", "id": "g", "tokens": [5] * tokens, "max_tokens": 3})
    host.call("engine.send", line=line)
    host.event("engine.line", lambda data: '"event":"done"' in data["line"])


def test_what_the_loaded_package_takes_will_be_free(engine: list[str], host: DesktopHost, big: Path) -> None:
    host.set(pick=str(big))
    host.call("packages.import", kind="folder")
    before = host.call("engine.plan", package=id_of(big))["free"]
    host.call("engine.start", package=id_of(big))
    fill(host, 1000)
    held = host.call("engine.plan", package=id_of(big))["free"] - before
    assert held == pytest.approx(taken(host)["anonymous_bytes"], rel=0.1)
    assert (
        host.call("engine.start", package=id_of(big))["plan"]["free"] - before < held / 2
    )  # it was unloaded


@pytest.mark.parametrize("kv", ["float16", "int8"])
def test_the_engine_keeps_to_the_plan(engine: list[str], host: DesktopHost, big: Path, kv: str) -> None:
    host.set(pick=str(big))
    host.call("packages.import", kind="folder")
    started = host.call("engine.start", package=id_of(big), kv=kv)["plan"]
    assert (started["context"], started["streamed"]) == (2048, False)
    fill(host, 2000)
    stats = taken(host)
    assert stats["cached_tokens"] >= 2000
    assert stats["anonymous_bytes"] <= started["anonymous"]
    assert stats["weight_bytes"] == started["weights"]


def test_blocks_are_read_from_storage_where_memory_is_short(
    engine: list[str], host: DesktopHost, big: Path
) -> None:
    manifest = Manifest.from_json((big / "manifest.json").read_text("utf-8"), big)
    host.set(pick=str(big), totalMemory=0)
    host.call("packages.import", kind="folder")
    roomy = host.call("engine.plan", package=id_of(big), context=2048, kv="int8")
    block = manifest.files["block_00.mnn.weight"].size
    # Room for the head, the two buffers, and half of the blocks beside them
    free = roomy["anonymous"] + head_file_bytes(manifest) + 2 * buffer_bytes(block) + 4 * block + MIB
    host.set(freeMemory=free + 256 * MIB)
    answer = host.call("engine.start", package=id_of(big), context=2048, kv="int8")
    started, loaded = answer["plan"], answer["loaded"]
    assert (started["fits"], started["streamed"], started["free"]) == (True, True, free)
    assert loaded["streamed_bytes"] == 4 * block
    with EngineProcess() as direct:
        direct.load(big, kv="int8", threads=started["threads"])
        expected = direct.generate([5, 6, 7], max_tokens=5)[0]
    line = json.dumps({"command": "generate", "id": "g", "tokens": [5, 6, 7], "max_tokens": 5})
    host.call("engine.send", line=line)
    tokens = []
    while len(tokens) < 5:
        event = json.loads(host.event("engine.line", lambda data: '"id":"g"' in data["line"])["line"])
        tokens.append(event["token"])
    assert tokens == expected
    fill(host, 2000)
    assert taken(host)["anonymous_bytes"] <= started["anonymous"]


def test_just_too_little(engine: list[str], host: DesktopHost, big: Path) -> None:
    """The plan's own figure is the boundary: with it the engine loads, one byte less is refused."""
    host.set(pick=str(big), totalMemory=0, freeMemory=0)
    host.call("packages.import", kind="folder")
    error = host.refused("engine.start", package=id_of(big))
    assert error["code"] == "memory"
    needed = error["details"]["needed"]
    host.set(freeMemory=needed + 256 * MIB - 1)
    assert host.refused("engine.start", package=id_of(big))["details"] == {
        "needed": needed,
        "free": needed - 1,
    }
    host.set(freeMemory=needed + 256 * MIB)
    answer = host.call("engine.start", package=id_of(big))
    assert answer["plan"]["context"] == answer["loaded"]["context"] == 512
    assert answer["loaded"]["streamed_bytes"] > 0


@pytest.mark.parametrize(
    ("frequencies", "big"),
    [
        ([], 4),
        ([1800, 1800, 1800, 1800, 2420, 2420, 2420, 2840], 4),  # Snapdragon 865: one core a little faster
        ([2016] * 3 + [2803] * 4 + [3187], 5),  # Snapdragon 8 Gen 2
        ([1804] * 6 + [2323] * 2, 2),
        ([1800] * 8, 8),
        ([1800] * 4 + [3000], 2),
        ([2000] * 16, 8),
    ],
)
def test_big_cores(probe: Probe, tmp_path: Path, frequencies: list[int], big: int) -> None:
    for core, frequency in enumerate(frequencies):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{frequency * 1000}\n")
    assert probe.ask("cores", path=str(tmp_path), cores=8) == {"answer": big}
