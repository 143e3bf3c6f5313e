"""Writes the generated parts of the documentation, or says which are out of date.

    python docs/generate.py            write them
    python docs/generate.py --check    exit code 1 and a list, if any differs

Enters: the command line's own definitions, the registry of model families, measured figures. Leaves:
`docs/cli.md`, and the text between `<!-- generated: NAME -->` and `<!-- end -->` in other pages.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter as SignatureParameter
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

DOCS = Path(__file__).parent
ROOT = DOCS.parent
CLI_PAGE = DOCS / "cli.md"
FORMATS = DOCS / "measurements" / "formats.json"
PEERS = DOCS / "measurements" / "peers.json"
PLANS = DOCS / "measurements" / "plan.json"
PAGES = (ROOT / "README.md", DOCS / "benchmarks.md", *sorted((DOCS / "guides").glob("*.md")))
SECTION = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered() -> dict[Path, str]:
    """Every page with generated text, as it should be."""
    pages = {path: SECTION.sub(_fill, path.read_text("utf-8")) for path in PAGES}
    return {CLI_PAGE: cli_page(), **pages}


def _fill(match: re.Match[str]) -> str:
    return f"{match[1]}{SECTIONS[match[2]]()}\n{match[3]}"


def models_table() -> str:
    """One row a family, in the registry's order."""
    from pocketglm.architecture.registry import supported_models

    rows = [
        (", ".join(m.examples), ", ".join(f"`{t}`" for t in m.model_types), ", ".join(m.refused))
        for m in supported_models()
    ]
    return _table(("models", "`model_type`", "refused with a clear message"), rows)


def formats_table() -> str:
    """Size and fidelity of one model in several formats, and where the figures come from."""
    data = json.loads(FORMATS.read_text("utf-8"))
    reference = data["rows"][0]["perplexity"]
    rows = []
    for row in data["rows"]:
        against, change = ("", ""), f"{row['perplexity']:.3f}"
        if row is not data["rows"][0]:
            against = (f"{row['kl']:.1e}", f"{row['top1']:.1%}")
            change = f"{row['perplexity']:.3f} ({row['perplexity'] / reference - 1:+.2%})"
        rows.append(
            (row["format"], f"`{row['options']}`", f"{row['package_bytes'] / 1e6:.0f} MB", change, *against)
        )
    head = ("format", "options", "package", "perplexity", "KL, nats a token", "same most probable token")
    note = (
        f"{data['source']}, {data['rows'][0]['tokens']} tokens predicted of `{data['text']}`, "
        f"{data['engine']} engine, {data['machine']}, Python {data['python']}, {data['date']}. "
        "Command: `python docs/measure_formats.py SmolLM2-135M-Instruct.Q4_1.gguf`."
    )
    return f"{_table(head, rows)}\n\n{note}"


def peers_table() -> str:
    """The 8-block model in all engines that were measured, and where the figures come from."""
    report = json.loads(PEERS.read_text("utf-8"))["block8"]
    prompt, context = str(report["first_prompt"]), "16"
    base = report["rows"][0]
    rows = []
    for row in report["rows"]:
        prefill, decode = row["prefill_tps"][prompt], row["decode_tps"][context]
        of_peak = f"{row['of_dot'][prompt]:.0%}, {row['of_read'][context]:.0%}"
        rows.append(
            (
                row["label"],
                f"{prefill:.0f} ({prefill / base['prefill_tps'][prompt]:.2f})",
                f"{decode:.1f} ({decode / base['decode_tps'][context]:.2f})",
                of_peak,
                f"{row['first_token_s']:.2f} s",
                f"{row['first_prefill_tps'] / prefill:.0%}",
                f"{row['peak_rss_bytes'] / row['weight_file_bytes']:.2f}",
            )
        )
    head = (
        *("engine", f"prefill of {prompt}, tokens/s", "decode, tokens/s", "of dot products, of reading"),
        *("first token of a fresh process", "first prefill of steady", "peak memory in weight files"),
    )
    return f"{_table(head, rows)}\n\n{_peers_note(report)}"


def _peers_note(report: Mapping[str, Any]) -> str:
    versions = {row["label"].partition(",")[0]: row["version"] for row in report["rows"]}
    named = ", ".join(f"{label} {version}" for label, version in versions.items())
    limits = report["limits"]
    parts = (
        f"{report['machine']}, {report['threads']} threads, medians, interleaved rounds: ",
        f"{report['rounds']}, {report['date']}; the machine read {limits['read'] / 1e9:.1f} GB/s and did ",
        f"{limits['dot'] / 1e9:.0f} billion operations of byte dot products a second ",
        f"({report['isa']}) in the same run. {named}. Command: `{report['command']}`.",
    )
    return "".join(parts)


def peers_sizes() -> str:
    """One table a case: tokens a second by prompt, context and sequences."""
    parts = []
    for case, report in sorted(json.loads(PEERS.read_text("utf-8")).items()):
        columns = _peer_columns(report["rows"])
        rows = [(row["label"], *_peer_rates(row, columns), *_peer_sizes(row)) for row in report["rows"]]
        names = tuple(name for *_, name in columns)
        head = ("engine", *names, "first token", "anonymous memory")
        failed = "".join(f" {peer} {why.splitlines()[0]}." for peer, why in report["failures"].items())
        parts.append(f"**{case}**\n\n{_table(head, rows)}\n\n{_peers_note(report)}{failed}")
    return "\n\n".join(parts)


def _peer_rates(row: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> list[str]:
    return [f"{row[kind][size]:.1f}" if size in row[kind] else "" for kind, size, _ in columns]


def _peer_sizes(row: Mapping[str, Any]) -> list[str]:
    memory = f"{row['anonymous_bytes'] / 2**20:.0f} MiB" if "anonymous_bytes" in row else ""
    return [f"{row['first_token_s']:.2f} s", memory]


def _peer_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(kind, size, heading) of every figure that any row has."""
    kinds = {"prefill_tps": "prefill {}", "decode_tps": "decode at {}", "together_tps": "{} together"}
    return [
        (kind, size, heading.format(size))
        for kind, heading in kinds.items()
        for size in sorted({size for row in rows for size in row[kind]}, key=int)
    ]


ORIGINAL_MACHINE = "11 GiB of GPU, 32 GiB of RAM; assumed: RAM read at 41 GB/s, the GPU's memory at 616 GB/s"
"""An RTX 2080 Ti and a Ryzen 9 3900X: the GPU's data sheet, and four fifths of two channels of DDR4-3200."""


def original_plans() -> str:
    """Plans of ChatGLM-6B for the machine of the original, beside the original's rule and figures."""
    from pocketglm.plan.planner import Limits, plan_for

    rows = []
    for name, bits in (("float16", 16), ("int8", 8), ("int4", 4)):
        manifest = _chatglm(bits)
        known = _original_measured(manifest)
        for use, layers in (("GPU and CPU", None), ("CPU alone", 0)):
            machine = _original_machine()
            plan = plan_for(manifest, machine, Limits(gpu_layers=layers, context=2048, kv="float16"), known)
            there = plan.placement.count("gpu")
            head = " and the head" if plan.placement.head == "gpu" else ""
            gpu = f"{plan.gpu.total / 2**30:.1f} GiB" if there else ""
            figure = {("float16", None): "3.5", ("float16", 0): "1.2"}.get((name, layers), "")
            on_gpu = f"{there}{head}" if there else "none"
            ram = f"{plan.ram.total / 2**30:.1f} GiB"
            rows.append((f"{name}, {use}", on_gpu, gpu, ram, f"{plan.speed.decode_tps:.1f}", figure))
    rule = int((11 - 2) * 1024 / 385)
    head = (
        "ChatGLM-6B",
        "blocks on the GPU",
        "GPU",
        "RAM",
        "tokens/s, predicted",
        "tokens/s of the original",
    )
    note = (
        f"{ORIGINAL_MACHINE}; context 2048, cache in float16, decoding with the context full. The rule of "
        f"thumb gives {rule} blocks, whatever the format and the context. The original's figures are of "
        "record, with float weights; ours are worked out from the assumptions, not measured, and say little "
        "about PyTorch's overhead on such a GPU."
    )
    return f"{_table(head, rows)}\n\n{note}"


def _chatglm(bits: Any) -> Any:
    """ChatGLM-6B as it would be converted; nothing is read."""
    from pocketglm.architecture.spec import ModelSpec, PrefixTokens, RotarySpec
    from pocketglm.plan.unconverted import unconverted_manifest
    from pocketglm.quantize.formats import WeightFormat
    from pocketglm.quantize.settings import head_format

    spec = ModelSpec(
        family="chatglm",
        **{"vocab_size": 130528, "hidden_size": 4096, "num_blocks": 28, "num_heads": 32, "num_kv_heads": 32},
        **{"head_dim": 128, "intermediate_size": 16384, "max_context": 2048, "tied_head": False},
        norm="layernorm",
        norm_eps=1e-5,
        residual="normed_alpha",
        residual_alpha=(2 * 28) ** 0.5,
        rotary=RotarySpec("half", 128, 10000.0, axes=2, frequency_dtype="float16"),
        mlp="gelu_tanh",
        **{"qkv_bias": True, "attention_output_bias": True, "mlp_bias": True},
        positions="glm_2d",
        prefix_tokens=PrefixTokens(mask=130000, gmask=130001, sop=130004),
    )
    block = WeightFormat(bits, 64)
    return unconverted_manifest(spec, block, head_format(block))


def _original_machine() -> Any:
    from pocketglm.cli.assume import GPU_PROCESS
    from pocketglm.plan.machine import Gpu, Machine

    return Machine(32 << 30, 12, (Gpu("RTX 2080 Ti", "cuda", 11 << 30, GPU_PROCESS, 616e9),))


def _original_measured(manifest: Any) -> Any:
    """The process as it is here; the speed as the machine's bandwidths allow."""
    from pocketglm.plan.memory_model import ProcessFigures
    from pocketglm.plan.native_memory import work_bytes
    from pocketglm.plan.planner import Measured
    from pocketglm.plan.rates import Bandwidths, Rates

    def work(kv: str, context: int) -> int:
        return work_bytes(manifest.spec, 12, context)

    process = ProcessFigures(80 << 20, 12, work, 8 << 20)
    return Measured(process, Rates.estimated(manifest, Bandwidths(read=41e9, disk=2e9, dot=1.5e12)))


def plans_table() -> str:
    """Predictions beside runs, one row a combination."""
    report = json.loads(PLANS.read_text("utf-8"))
    rows = []
    for row in report["rows"]:
        told, found = row["predicted"], row["measured"]
        peak, decode = (told[name] / found[name] - 1 for name in ("peak_bytes", "decode_tps"))
        rows.append(
            (
                f"{row['model']}, {row['context']}, {row['kv']}",
                f"{row['streamed_blocks']} of {row['blocks']}",
                f"{told['peak_bytes'] / 2**20:.0f} MiB",
                f"{found['peak_bytes'] / 2**20:.0f} MiB ({peak:+.1%})",
                f"{row['hard_limit_bytes'] / 2**20:.0f} MiB",
                f"{told['decode_tps']:.1f}",
                f"{found['decode_tps']:.1f} ({decode:+.0%})",
            )
        )
    load = report["load_average"][0]
    busy = ""
    if load > 2 * report["threads"]:
        busy = (
            f"The load average was {load:.1f}: other work took most of the processors, so that the rates say "
            "little, and the peaks all. "
        )
    head = (
        *("model, context, KV cache", "blocks from disk", "peak, predicted", "peak, measured (error)"),
        *("hard limit", "decode, tokens/s, predicted", "measured (error)"),
    )
    note = (
        f"{report['machine']}, {report['threads']} threads, {report['date']}; no run was killed. {busy}"
        f"Command: `{report['command']}`."
    )
    return f"{_table(head, rows)}\n\n{note}"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "models": models_table,
    "formats": formats_table,
    "peers": peers_table,
    "peers-sizes": peers_sizes,
    "plans": plans_table,
    "original-plans": original_plans,
}


def cli_page() -> str:
    """All commands with their arguments and options."""
    from pocketglm.cli.main import EPILOG, app

    parts = [
        "# Commands",
        "Generated by `python docs/generate.py` from the program itself; do not edit. "
        "`pocketglm COMMAND --help` shows the same.",
        EPILOG,
        "`--debug`, anywhere in the line, shows the traceback of an error. `--version` prints the version.",
    ]
    for command in app.registered_commands:
        parameters = _parameters(command.callback)
        arguments = " ".join(p.shown for p in parameters if not p.option)
        parts += [f"## {command.name}", f"    pocketglm {command.name} {arguments} [OPTIONS]"]
        parts += [_paragraphs(command.callback.__doc__ if command.callback else None)]
        rows = [(f"`{p.shown}`", _paragraphs(p.help), p.default) for p in parameters]
        parts.append(_table(("argument or option", "meaning", "default"), rows))
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Parameter:
    """One argument or option of a command, as the page shows it."""

    option: bool
    shown: str
    help: str | None
    default: str


def _parameters(command: Any) -> list[Parameter]:
    """From the command's signature, which means the same to every version of typer."""
    hints = get_type_hints(command, include_extras=True)
    return [_parameter(name, hints[name], p.default) for name, p in signature(command).parameters.items()]


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    from typer.models import OptionInfo

    kind, info = get_args(hint)[:2]
    required, option = default is SignatureParameter.empty, isinstance(info, OptionInfo)
    value = info.metavar or _value_name(kind)
    if option:
        # In an annotation, typer keeps the first of an option's names where a default would stand.
        names = [n for n in (info.default, *(info.param_decls or ())) if isinstance(n, str)]
        names = names or [f"--{name.replace('_', '-')}"]
        shown = ", ".join(names) + ("" if kind is bool else f" {value}")
    else:
        shown = value if required else f"[{value.strip('[]')}]"
    text = (
        "required"
        if required
        else ""
        if default in (None, False)
        else f"`{getattr(default, 'value', default)}`"
    )
    return Parameter(option, shown, info.help, text)


def _value_name(kind: Any) -> str:
    """What stands for a value: a number, a text, or the choices there are."""
    kind = next((k for k in get_args(kind) if k is not type(None)), kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(choice.value for choice in kind)
    return {int: "N", float: "X", Path: "FILE"}.get(kind, "TEXT")


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n")).strip()


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> None:
    pages = rendered()
    stale = [p for p, text in pages.items() if not p.is_file() or p.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python docs/generate.py")
        sys.exit(bool(stale))
    for path in stale:
        path.write_text(pages[path], "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
