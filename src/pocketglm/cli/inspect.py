"""`pocketglm inspect`: what a package holds, where it came from, and how true it is to the original."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from pocketglm.cli import console
from pocketglm.cli.options import JsonOption, PackageArgument
from pocketglm.cli.sizes import format_count, format_size

if TYPE_CHECKING:
    from pocketglm.package.manifest import Manifest
    from pocketglm.package.reader import Package


def inspect(package: PackageArgument, json: JsonOption = False) -> None:
    """Show a package's model, weights, origin and fidelity report. Reads no weights."""
    from pocketglm.package.reader import Package

    with Package.open(package) as opened:
        data = describe(opened)
    if json:
        console.report(data)
    else:
        console.answer(console.pairs(overview(data)))
        if rows := fidelity_rows(data["fidelity"]):
            console.answer("\nfidelity (stored against original, on the same inputs)")
            console.answer(console.table(rows))


def describe(package: Package) -> dict[str, Any]:
    """Everything about a package but its weights, as plain JSON types."""
    manifest = package.manifest
    files = {name: entry.size for name, entry in sorted(manifest.files.items())}
    return {
        "path": str(package.path),
        "fingerprint": package.fingerprint,
        "package_bytes": sum(files.values()),
        "parameters": count_parameters(manifest),
        "model": manifest.spec.to_dict(),
        "weights": count_formats(manifest),
        "embedding": manifest.embedding_dtype,
        "generation": package.json("generation.json"),
        "source": dict(manifest.source),
        "quantization": dict(manifest.quantization),
        "fidelity": manifest.fidelity,
        "files": files,
    }


def count_parameters(manifest: Manifest) -> int:
    """Weights of the model. A tied head is stored twice and counted once."""
    spec = manifest.spec
    vocabulary = spec.vocab_size * spec.hidden_size
    stored = sum(math.prod(entry.shape) for entries in manifest.weights.values() for entry in entries)
    return stored + (0 if spec.tied_head else vocabulary)


def count_formats(manifest: Manifest) -> list[dict[str, Any]]:
    """The formats of linear layers and how many weights each has, the largest first."""
    from pocketglm.package.encoding import LinearEntry

    counts: Counter[tuple[int, int | None, bool | None]] = Counter()
    for entries in manifest.weights.values():
        for entry in entries:
            if isinstance(entry, LinearEntry):
                fmt = entry.format
                details = (fmt.group, fmt.symmetric) if fmt.quantized else (None, None)
                counts[(fmt.bits, *details)] += math.prod(entry.shape)
    return [
        {"bits": bits, "group": group, "symmetric": symmetric, "weights": count}
        for (bits, group, symmetric), count in counts.most_common()
    ]


def overview(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values for people."""
    model, generation = data["model"], data["generation"] or {}
    source = {"name": "unknown", "format": "unknown", "converter": "unknown", **data["source"]}
    heads = f"{model['num_heads']} heads x {model['head_dim']}, {model['num_kv_heads']} KV heads"
    sampling = ["temperature", "top_p", "top_k"] if generation.get("do_sample") else []
    rows = [
        ("package", f"{data['path']}, {format_size(data['package_bytes'])}, {len(data['files'])} files"),
        ("model", f"{model['family']}, {format_count(data['parameters'])} parameters"),
        (
            "blocks",
            f"{model['num_blocks']} x {model['hidden_size']}, {heads}, MLP {model['intermediate_size']}",
        ),
        ("vocabulary", f"{model['vocab_size']} tokens, embedding {data['embedding']}"),
        ("context", f"{model['max_context']} tokens"),
        ("weights", "; ".join(map(format_name, data["weights"]))),
        ("sampling", ", ".join(f"{name} {generation[name]}" for name in sampling) or "greedy"),
        (
            "files for text",
            ", ".join(n for n in ("tokenizer.json", "chat_template.jinja") if n in data["files"]) or "none",
        ),
        (
            "made from",
            f"{source['name']} ({source['format']}), by {source['converter']}",
        ),
    ]
    if kept := source.get("kept_rows"):
        rows.append(("kept tokens", f"{sum(count for _, count in kept)} of the checkpoint's vocabulary"))
    return rows


def format_name(entry: dict[str, Any]) -> str:
    """`int4, groups of 64 (6.0 B weights)`."""
    kind = f"float{entry['bits']}" if entry["group"] is None else f"int{entry['bits']}"
    groups = {None: "", 0: ", one group a row"}.get(entry["group"], f", groups of {entry['group']}")
    symmetric = ", symmetric" if entry["symmetric"] else ""
    return f"{kind}{groups}{symmetric} ({format_count(entry['weights'])} weights)"


def fidelity_rows(fidelity: dict[str, Any] | None) -> list[list[str]]:
    """A table of the report's figures, one row a block; empty where the report was left out."""
    if not fidelity or not fidelity.get("model"):
        return []
    rows = [["", "relative error", "accumulated error"]]
    for index, block in enumerate(fidelity["blocks"]):
        rows.append([f"block {index}", _error(block.get("output")), _error(block.get("accumulated"))])
    rows.append(["head", _error(fidelity["head"].get("output")), ""])
    model = fidelity["model"]
    rows.append(["whole model", f"KL {model['kl_divergence']}", f"top-1 {model['top1_agreement']:.1%}"])
    return rows


def _error(figures: dict[str, Any] | None) -> str:
    return "-" if figures is None else str(figures.get("relative_error", "-"))
