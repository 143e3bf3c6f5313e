"""Speed of the torch engine on a GPU: `python bench/gpu.py [--hybrid DIR] [--output FILE]`.

ChatGLM-6B's decoder with random weights, made on the GPU, in int4, int8 and float16, beside the same shapes
in plain PyTorch (float16). The memory's bandwidth is measured in every round, so that other work disturbs
both alike; figures are medians. The matrix products are measured alone, too. With `--hybrid` a package of
the same size is written into a folder, and decoded with a quarter, half, three quarters and all of its
blocks on the GPU. Needs a CUDA device, 16 GB of its memory, and minutes. The last line is the report as
JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_models import EngineModel, Float16Model, Model, random_linear
from peers.shape import Shape
from peers.write_package import chatglm_spec, write_package

from pocketglm.architecture.spec import ModelSpec
from pocketglm.engine.torch.device import current
from pocketglm.engine.torch.operations import choose_operations
from pocketglm.generate.bench import BenchSettings, bench
from pocketglm.package.encoding import LinearEntry
from pocketglm.package.layout import plan_block
from pocketglm.plan.placement import Placement
from pocketglm.quantize.formats import WeightFormat

CHATGLM_6B = Shape(hidden=4096, intermediate=16384, heads=32, kv_heads=32, blocks=28, vocabulary=130528)
TINY = Shape(hidden=64, intermediate=256, heads=4, kv_heads=4, blocks=2, vocabulary=128)
FORMATS = {"int4": WeightFormat(4), "int8": WeightFormat(8), "float16": WeightFormat(16)}
COPY_BYTES = 1 << 30
SHARES = (0.25, 0.5, 0.75, 1.0)


def main() -> None:
    options = arguments()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "bench/gpu.py: PyTorch finds no CUDA device here, nothing was measured\n"
            "hint: --device cpu --tiny runs the same steps with plain PyTorch, for tests"
        )
    spec = chatglm_spec(TINY if options.tiny else CHATGLM_6B)
    report = {
        "machine": machine(device),
        "prompt": options.prompt,
        "new_tokens": options.tokens,
        "models": {},
    }
    for name, make in models(spec, device, options.prompt + options.tokens).items():
        report["models"][name] = figures = measure(make, spec, device, options)
        print(name, json.dumps(figures), file=sys.stderr, flush=True)
    report["products"] = products(spec, device, options)
    if options.hybrid:
        report["hybrid"] = hybrid(spec, options)
    text = json.dumps(report)
    if options.output:
        options.output.write_text(text + "\n", "utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded after it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hybrid", type=Path, help="folder for a package of 3.9 GB; written if not there")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a model of a few KB, to try the script")
    return parser.parse_args()


def models(spec: ModelSpec, device: torch.device, context: int) -> dict[str, Callable[[], Model]]:
    """What is measured, by name; each is made when its turn comes, so that only one is in memory."""
    found: dict[str, Callable[[], Model]] = {
        name: lambda form=form: EngineModel(spec, form, device)  # type: ignore[misc]
        for name, form in FORMATS.items()
    }
    found["int4, no graphs"] = lambda: EngineModel(spec, FORMATS["int4"], device, graphs=False)
    found["pytorch float16"] = lambda: Float16Model(spec, device, context)
    return found


def measure(
    make: Callable[[], Model], spec: ModelSpec, device: torch.device, options: argparse.Namespace
) -> dict[str, Any]:
    """Medians of some rounds, after one that compiles and records."""
    model = make()
    rounds = [one_round(model, spec, device, options) for _ in range(options.rounds + 1)][1:]
    prefill, decode, bandwidth = (statistics.median(column) for column in zip(*rounds, strict=True))
    figures = {
        "weight_bytes": model.weight_bytes,
        "kernels": getattr(model, "kernels", False),
        "prefill_tps": round(prefill, 1),
        "decode_tps": round(decode, 2),
        "bandwidth_gbs": round(bandwidth / 1e9, 1),
        "share_of_bandwidth": round(decode * model.weight_bytes / bandwidth, 3),
    }
    del model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return figures


def one_round(
    model: Model, spec: ModelSpec, device: torch.device, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Tokens a second of the prompt and after it, and bytes a second of the device's memory."""
    prompt = np.random.default_rng(0).normal(size=(options.prompt, spec.hidden_size)).astype(np.float32)
    model.restart()
    began = time.perf_counter()
    model.feed(prompt)
    prefill_s = time.perf_counter() - began
    began = time.perf_counter()
    for row in range(options.tokens):
        # The next token's row depends on the answer, as it does when a model speaks
        token = int(model.feed(prompt[row : row + 1])[-1].argmax())
        prompt[(row + 1) % len(prompt), 0] += token % 2
    decode_s = time.perf_counter() - began
    size = COPY_BYTES if device.type == "cuda" else 1 << 20
    return options.prompt / prefill_s, options.tokens / decode_s, bandwidth(device, size)


def products(spec: ModelSpec, device: torch.device, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each matrix of a block alone: bytes a second with one row and two, operations a second with many."""
    operations = choose_operations(device, None)
    found = []
    with torch.inference_mode(), current(device):
        for name, form in FORMATS.items():
            for entry in plan_block(spec, 0, lambda name, shape, form=form: form).entries:
                if not isinstance(entry, LinearEntry):
                    continue
                layer, figures = random_linear(entry, device), {}
                for rows in (1, 2, 4, 16, options.prompt):
                    x = torch.randn(rows, entry.shape[1], device=device)
                    seconds = statistics.median(
                        seconds_of(lambda x=x, layer=layer: operations.functions.linear(x, layer), device)
                        for _ in range(options.rounds)
                    )
                    weight_bytes = entry.codes_bytes + entry.alpha_bytes
                    figures[rows] = {
                        "gbs": round(weight_bytes / seconds / 1e9, 1),
                        "tflops": round(2 * rows * entry.shape[0] * entry.shape[1] / seconds / 1e12, 2),
                    }
                found.append({"format": name, "matrix": entry.name, "rows": figures})
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def seconds_of(call: Callable[[], object], device: torch.device, times: int = 20) -> float:
    """Time of one call by the device's own clock: of many in one graph, because Python may be slower at
    starting small ones than the device is at computing them."""
    call()
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            call()
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / times


def bandwidth(device: torch.device, size: int, times: int = 10) -> float:
    """Bytes read and written a second by copies on the device."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    target.copy_(source)
    wait()
    began = time.perf_counter()
    for _ in range(times):
        target.copy_(source)
    wait()
    return 2 * size * times / (time.perf_counter() - began)


def hybrid(spec: ModelSpec, options: argparse.Namespace) -> list[dict[str, Any]]:
    """`pocketglm bench` of a package, with more and more of its blocks on the GPU."""
    path = options.hybrid / ("tiny" if options.tiny else "chatglm-6b-int4")
    if not path.exists():
        write_package(path, spec)
    settings = BenchSettings(prompt_tokens=options.prompt, new_tokens=options.tokens, rounds=options.rounds)
    found = []
    for share in SHARES:
        count = round(share * spec.num_blocks)
        placement = Placement.first_on_gpu(spec.num_blocks, count, gpu_backend=options.device)
        result = bench(path, settings, placement=placement).to_dict()
        found.append({"gpu_share": share, **result})
        print(f"hybrid {share:.0%}", json.dumps(result), file=sys.stderr, flush=True)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "capability": f"{properties.major}.{properties.minor}"}
        found |= {"memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return found


if __name__ == "__main__":
    main()
