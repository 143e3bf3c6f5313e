"""Plans: within their limits, in one piece, no worse with more memory, and clear where nothing fits."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from generate.tiny_models import CAUSAL, PREFIXED
from pocketglm.errors import InputError, ResourceError
from pocketglm.plan import native_memory
from pocketglm.plan.kv_cache import KV_TYPES
from pocketglm.plan.machine import Gpu, Machine
from pocketglm.plan.memory_model import READER_BYTES, ProcessFigures, expected_gpu, expected_ram, reserved_ram
from pocketglm.plan.placement import Placement
from pocketglm.plan.planner import Limits, Measured, Plan, plan_for, spread_evenly
from pocketglm.plan.rates import Bandwidths, Rates
from pocketglm.plan.speed_model import predict_speed
from pocketglm.plan.unconverted import unconverted_manifest
from pocketglm.quantize.formats import WeightFormat

MIB = 1 << 20
GIB = 1 << 30
INT4, INT8, HALF = WeightFormat(4, 64), WeightFormat(8, 64), WeightFormat(16)
LARGE = replace(
    CAUSAL, hidden_size=2048, intermediate_size=8192, num_blocks=16, num_heads=16, num_kv_heads=16,
    head_dim=128, vocab_size=32000, max_context=8192,
)  # fmt: skip
CHATGLM = replace(
    PREFIXED, hidden_size=4096, intermediate_size=16384, num_blocks=28, num_heads=32, num_kv_heads=32,
    head_dim=128, vocab_size=130528, max_context=2048,
)  # fmt: skip
MODELS = {
    (name, bits): unconverted_manifest(spec, blocks, INT8)
    for name, spec in (("large", LARGE), ("chatglm", CHATGLM))
    for bits, blocks in ((4, INT4), (16, HALF))
}
BANDWIDTHS = Bandwidths(read=40e9, disk=3e9, dot=1.5e12)
RESIDENT = 110 * MIB


def known(manifest: Any) -> Measured:
    def work(kv: str, context: int) -> int:
        return native_memory.work_bytes(manifest.spec, 2, context) // 2

    return Measured(ProcessFigures(RESIDENT, 2, work, 2 * MIB), Rates.estimated(manifest, BANDWIDTHS))


def gpu(free: int) -> Gpu:
    return Gpu("a GPU", "cuda:0", free, process=600 * MIB, read_bytes_per_s=600e9)


def plan(model: tuple[str, int], ram: int, on_gpu: int = 0, **limits: Any) -> Plan:
    manifest = MODELS[model]
    machine = Machine(ram, 2, (gpu(on_gpu),) if on_gpu else ())
    return plan_for(manifest, machine, Limits(**limits), known(manifest))


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(200 * MIB, 16 * GIB),
        "gpu_memory": st.integers(100 * MIB, 16 * GIB),
        "context": st.integers(1, 8192),
        "kv": st.sampled_from(KV_TYPES),
    },
)


@settings(max_examples=80, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    ram=st.integers(500 * MIB, 32 * GIB),
    on_gpu=st.just(0) | st.integers(300 * MIB, 24 * GIB),
    limits=LIMITS,
)
def test_a_plan_stays_within_its_limits(
    model: tuple[str, int], ram: int, on_gpu: int, limits: dict[str, Any]
) -> None:
    try:
        made = plan(model, ram, on_gpu, **limits)
    except ResourceError:
        assume(False)
        return
    manifest, spec = MODELS[model], MODELS[model].spec
    placement, process = made.placement, known(manifest).process
    extra = 600 * MIB if placement.uses_gpu else 0
    reserved = reserved_ram(manifest, placement, made.context, process).total + extra
    assert made.ram.total <= reserved <= made.ram_limit <= min(ram, limits.get("memory", ram))
    assert made.gpu.total <= made.gpu_limit <= min(on_gpu, limits.get("gpu_memory", on_gpu))
    assert made.context == placement.context <= spec.max_context
    assert placement.kv == limits.get("kv", placement.kv)
    if "context" in limits:
        assert made.context == min(limits["context"], spec.max_context)
    runs = [beside for beside, _ in groupby(place == "gpu" for place in placement.blocks)]
    assert runs in ([True], [False], [True, False])
    assert min(made.speed.load_s, made.speed.prefill_tps, made.speed.decode_tps) > 0
    assert Placement.from_dict(made.to_dict()["placement"]) == placement


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    ram=st.integers(GIB, 16 * GIB),
    more=st.integers(1, 8 * GIB),
    on_gpu=st.just(0) | st.integers(GIB, 12 * GIB),
    context=st.sampled_from([256, 1024, 2048]),
)
def test_more_memory_never_moves_blocks_to_disk(
    model: tuple[str, int], ram: int, more: int, on_gpu: int, context: int
) -> None:
    try:
        less = plan(model, ram, on_gpu, context=context, kv="float16")
    except ResourceError:
        assume(False)
        return
    richer = plan(model, ram + more, on_gpu, context=context, kv="float16")
    assert richer.placement.count("disk") <= less.placement.count("disk")
    assert richer.speed.decode_tps >= less.speed.decode_tps * 0.999
    if on_gpu:
        wider = plan(model, ram, on_gpu + more, context=context, kv="float16")
        assert wider.placement.count("gpu") >= less.placement.count("gpu")


def test_a_gpu_that_takes_more_ram_than_it_saves_is_left_alone() -> None:
    ram, on_gpu = 9 * GIB // 4, 3 * GIB // 2
    alone = plan(("chatglm", 4), ram, context=2048, kv="float16")
    beside = plan(("chatglm", 4), ram, on_gpu, context=2048, kv="float16")
    assert beside.placement.blocks == alone.placement.blocks
    assert any("GPU: no block" in reason for reason in beside.reasons)
    with pytest.raises(ResourceError, match="GiB of RAM are too little"):
        plan(("chatglm", 4), ram, on_gpu, context=2048, kv="float16", gpu_layers=3)


def test_everything_stays_in_ram_where_it_fits() -> None:
    made = plan(("chatglm", 4), 16 * GIB)
    assert made.placement.text == "ram:0-27,ram:head"
    assert made.context == 2048
    assert made.placement.kv == "float16"
    assert made.placement.memory is None
    assert any("all of them fit" in reason for reason in made.reasons)


def test_what_does_not_fit_is_read_from_disk_evenly() -> None:
    made = plan(("chatglm", 4), 16 * GIB, memory=2 * GIB + 512 * MIB, context=512)
    read = [index for index, place in enumerate(made.placement.blocks) if place == "disk"]
    gaps = {after - before for before, after in pairwise(read)}
    assert 4 < len(read) < 28
    assert max(gaps) - min(gaps) <= 1
    assert made.placement.memory == 2 * GIB + 512 * MIB
    assert not made.whole_in_memory
    (why,) = (reason for reason in made.reasons if reason.startswith("disk:"))
    assert f"{len(read)} of the 28 blocks are read" in why
    assert f"no more than {28 - len(read)} fit into RAM" in why


def test_the_first_blocks_go_to_the_gpu_and_with_all_of_them_the_head() -> None:
    made = plan(("chatglm", 16), 32 * GIB, 11 * GIB, context=1024)
    assert 15 <= made.placement.count("gpu") < 28
    assert made.placement.text.startswith("gpu:0-")
    assert made.placement.head == "ram"
    assert made.placement.gpu_backend == "cuda:0"
    assert not made.speed_measured
    whole = plan(("chatglm", 4), 32 * GIB, 11 * GIB, context=1024)
    assert whole.placement.text == "gpu:0-27,gpu:head"


def test_layers_that_are_asked_for_are_given_or_refused() -> None:
    assert plan(("chatglm", 16), 32 * GIB, 11 * GIB, gpu_layers=3).placement.count("gpu") == 3
    assert not plan(("chatglm", 16), 32 * GIB, 11 * GIB, gpu_layers=0).placement.uses_gpu
    with pytest.raises(ResourceError, match="28 blocks on the GPU take") as refused:
        plan(("chatglm", 16), 32 * GIB, 11 * GIB, gpu_layers=28, context=2048)
    (fits,) = re.findall(r"--gpu-layers (\d+)", str(refused.value.hint))
    assert plan(("chatglm", 16), 32 * GIB, 11 * GIB, gpu_layers=int(fits), context=2048)
    with pytest.raises(ResourceError, match="there is none"):
        plan(("chatglm", 16), 32 * GIB, gpu_layers=3)


def test_an_open_context_gives_way_and_int8_is_chosen_where_it_would_be_short() -> None:
    made = plan(("large", 4), 16 * GIB, memory=500 * MIB)
    assert made.placement.kv == "int8"
    assert 256 <= made.context < 8192
    assert any(reason.startswith("KV cache: int8") for reason in made.reasons)
    assert plan(("large", 4), 16 * GIB, memory=500 * MIB, kv="float16").placement.kv == "float16"


def test_where_nothing_fits_the_least_that_does_is_said() -> None:
    with pytest.raises(ResourceError, match="too little") as refused:
        plan(("large", 4), 16 * GIB, memory=150 * MIB, context=1024, kv="float16")
    (least,) = re.findall(r"at least ([\d.]+) MiB", str(refused.value))
    enough = round((float(least) + 0.1) * MIB)
    assert plan(("large", 4), 16 * GIB, memory=enough, context=1024, kv="float16").placement.count("disk")
    with pytest.raises(ResourceError):
        plan(("large", 4), 16 * GIB, memory=enough - MIB, context=1024, kv="float16")


def test_a_limit_beyond_what_is_free_is_not_believed() -> None:
    assert plan(("chatglm", 4), 3 * GIB, memory=64 * GIB, context=512).ram_limit < 3 * GIB


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"gpu_layers": -1}, {"context": 0}])
def test_impossible_limits_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        Limits(**wrong)


def test_parts_are_where_the_placement_says() -> None:
    manifest = MODELS["chatglm", 4]
    process = known(manifest).process
    placement = Placement.parse("gpu:0-9,ram:10-20,disk:21-27,ram:head")
    ram = expected_ram(manifest, placement, 1000, process).parts
    block = native_memory.block_sizes(manifest, [0])[0]
    assert ram["blocks in RAM"] == 11 * block
    assert ram["read buffers"] == 2 * native_memory.buffer_bytes(block) + READER_BYTES
    assert ram["KV cache"] == 16 * native_memory.page_bytes(manifest.spec, 18, "float16")
    on_gpu = expected_gpu(manifest, placement, 1000)
    assert on_gpu.parts["blocks"] >= 10 * block
    assert on_gpu.parts["head"] == 0
    assert expected_gpu(manifest, Placement(("ram",) * 28), 1000).total == 0


def test_reading_counts_only_where_it_is_slower_than_computing() -> None:
    manifest = MODELS["chatglm", 4]
    rates = Rates.estimated(manifest, BANDWIDTHS)
    whole = predict_speed(manifest, Placement(("ram",) * 28), 512, rates)
    streamed = predict_speed(manifest, Placement(("disk",) * 28), 512, rates)
    size = sum(native_memory.block_sizes(manifest, range(28)).values())
    assert 1 / streamed.decode_tps == pytest.approx(size / 3e9, rel=0.01)
    fast = rates.on(replace(BANDWIDTHS, disk=1e12))
    assert predict_speed(manifest, Placement(("disk",) * 28), 512, fast).decode_tps == whole.decode_tps
    half = rates.on(replace(BANDWIDTHS, read=20e9))
    assert predict_speed(manifest, Placement(("ram",) * 28), 512, half).decode_tps < whole.decode_tps * 0.51


def test_rows_of_a_prefix_see_all_of_it() -> None:
    """Where a prompt is a prefix, its attention takes twice what causal attention takes."""
    manifest = MODELS["chatglm", 4]
    causal = unconverted_manifest(replace(CHATGLM, prefix_tokens=None, positions="sequential"), INT4, INT8)
    rates = replace(Rates.estimated(manifest, BANDWIDTHS), row_s=1e-9, head_s=0.0, step_s=0.0)
    whole = Placement(("ram",) * 28)
    prefixed, alone = (predict_speed(model, whole, 2048, rates).prefill_tps for model in (manifest, causal))
    assert alone / prefixed == pytest.approx(2, rel=0.01)


def test_blocks_are_spread_as_the_native_engine_does() -> None:
    assert spread_evenly(10, 3) == [3, 6, 9]
    assert spread_evenly(4, 4) == [0, 1, 2, 3]
    assert spread_evenly(4, 0) == []
