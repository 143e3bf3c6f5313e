"""Medians, ratios and shares of the machine's limits; as rows of numbers and as a table.

Enters: what the rounds gave. Leaves: one dictionary a peer, of plain JSON types.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from peers.models import Case, weight_file_bytes
from peers.rounds import Measured

BASE = "pocketglm"
OTHER_VALUES = ("chatglm-package", "openvino-i4-128")
"""Models whose weights cannot have the values that the others have."""
SIMPLE = (
    *("load_s", "first_prefill_s", "first_token_s", "first_token_from_start_s"),
    *("peak_rss_bytes", "anonymous_bytes"),
)


def machine_medians(found: Sequence[Measured]) -> dict[str, float]:
    """Read bandwidth in bytes and dot products in operations a second, over all rounds."""
    samples = [sample for measured in found for sample in measured.machine]
    return {name: statistics.median(sample[name] for sample in samples) for name in ("read", "dot")}


def rows_of(found: Sequence[Measured], case: Case, first_prompt: int) -> list[dict[str, Any]]:
    """One row a peer that answered, in the order of the peers."""
    answered = [measured for measured in found if measured.answers and not measured.failure]
    reference = next((m.answers[0]["logits"] for m in answered if m.peer.name == BASE), None)
    rows = [_row(measured, case, first_prompt) for measured in answered]
    for row, measured in zip(rows, answered, strict=True):
        same_model = case.shape is not None and measured.peer.model not in OTHER_VALUES
        logits = measured.answers[0]["logits"]
        row["cosine"] = round(cosine(logits, reference), 5) if reference and same_model else None
    return rows


def _row(measured: Measured, case: Case, first_prompt: int) -> dict[str, Any]:
    peer, answers = measured.peer, measured.answers
    weights = weight_bytes(measured, case)
    prefill = _rates(answers, "prefill_s", int)
    decode = _rates(answers, "decode_s", lambda _: 1)
    together = _rates(answers, "together_s", int)
    simple = {name: statistics.median(a[name] for a in answers) for name in SIMPLE if name in answers[0]}
    return {
        "peer": peer.name,
        "label": peer.label,
        "version": answers[0]["version"],
        "rounds": len(answers),
        **{name: round(value, 4) for name, value in simple.items()},
        "first_prefill_tps": round(first_prompt / simple["first_prefill_s"], 2),
        "weight_file_bytes": weight_file_bytes(measured.model),
        "weight_bytes_per_token": weights,
        "prefill_tps": prefill,
        "decode_tps": decode,
        "together_tps": together,
        "of_dot": _shares(measured, "prefill_s", "dot", _operations(measured, case)),
        "of_read": _shares(measured, "decode_s", "read", lambda _: weights),
    }


def _rates(answers: Sequence[dict[str, Any]], name: str, tokens: Callable[[str], int]) -> dict[str, float]:
    """Median tokens a second by size; sizes that failed are left out."""
    sizes = [size for size in answers[0][name] if all(a[name][size] for a in answers)]
    return {
        size: round(tokens(size) / statistics.median(a[name][size] for a in answers), 2) for size in sizes
    }


def weight_bytes(measured: Measured, case: Case) -> int:
    """Bytes of weights that a decoded token reads, in the form in which the peer stores them."""
    if case.shape is None:
        return weight_file_bytes(measured.model)
    return int(_parameters(measured, case, with_head=True) * measured.peer.bits / 8)


def _parameters(measured: Measured, case: Case, *, with_head: bool) -> int:
    shape = case.shape
    assert shape is not None
    own = 12 * shape.hidden**2  # ChatGLM-6B's block: qkv, output, and an MLP of 4 times the width
    block = own if measured.peer.model == "chatglm-package" else shape.block_parameters
    return shape.blocks * block + (shape.vocabulary * shape.hidden if with_head else 0)


def _operations(measured: Measured, case: Case) -> Callable[[str], float] | None:
    """Multiplications and additions of a prompt. The head runs on one row only: the blocks alone count."""
    if case.shape is None:
        return None
    each = 2 * _parameters(measured, case, with_head=False)
    return lambda size: each * int(size)


def _shares(
    measured: Measured, name: str, limit: str, work: Callable[[str], float] | None
) -> dict[str, float | None]:
    """Median share of what the machine could do right before, by size: its speed changes with time."""
    shares: dict[str, float | None] = {}
    for size in _rates(measured.answers, name, int):
        rates = [answer[name][size] * machine[limit] for answer, machine in _pairs(measured)]
        shares[size] = work and round(statistics.median(work(size) / rate for rate in rates), 3)
    return shares


def _pairs(measured: Measured) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(measured.answers, measured.machine, strict=True))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two rows of logits: 1 where both peers computed the same model."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def table(rows: Sequence[dict[str, Any]], limits: dict[str, float]) -> str:
    """For people; rates are tokens a second, and in brackets multiples of PocketGLM's."""
    base = next((row for row in rows if row["peer"].startswith(BASE)), None)
    lines = [
        f"machine: reads {limits['read'] / 1e9:.1f} GB/s, {limits['dot'] / 1e9:.0f} GOPS of byte dot products"
    ]
    for row in rows:
        lines.append(f"{row['label']} ({row['version']})")
        lines += [f"    {text}" for text in _figures(row, base)]
    return "\n".join(lines)


def _figures(row: dict[str, Any], base: dict[str, Any] | None) -> list[str]:
    parts = []
    for name, what, shares, limit in (
        ("prefill_tps", "prefill {} tokens", "of_dot", "of the dot products"),
        ("decode_tps", "decode at context {}", "of_read", "of the read bandwidth"),
        ("together_tps", "decode {} together", "", ""),
    ):
        for size, rate in row[name].items():
            share = row[shares][size] if shares else None
            more = "" if share is None else f", {share:.0%} {limit}"
            ratio = f" ({rate / base[name][size]:.2f})" if base and size in base[name] else ""
            parts.append(f"{what.format(size):22s} {rate:8.2f} tokens/s{ratio}{more}")
    parts.append(
        f"load {row['load_s']:.2f} s, first token after {row['first_token_s']:.2f} s "
        f"({row['first_token_from_start_s']:.2f} s from the start of the process), "
        f"first prefill {row['first_prefill_tps']:.1f} tokens/s"
    )
    if "peak_rss_bytes" in row:
        times = row["peak_rss_bytes"] / row["weight_file_bytes"]
        parts.append(
            f"peak memory {row['peak_rss_bytes'] / 2**20:.0f} MiB ({times:.2f} times the weight files), "
            f"anonymous {row['anonymous_bytes'] / 2**20:.0f} MiB"
        )
    if row["cosine"] is not None:
        parts.append(f"logits' cosine with PocketGLM's: {row['cosine']:.5f}")
    return parts
