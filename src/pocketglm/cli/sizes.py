"""Sizes as people write and read them: `2GiB`, `1.5GB`, `800MiB`."""

from __future__ import annotations

import re

from pocketglm.errors import InputError

UNITS = {
    "": 1, "B": 1,
    "K": 1 << 10, "KIB": 1 << 10, "KB": 10**3,
    "M": 1 << 20, "MIB": 1 << 20, "MB": 10**6,
    "G": 1 << 30, "GIB": 1 << 30, "GB": 10**9,
    "T": 1 << 40, "TIB": 1 << 40, "TB": 10**12,
}  # fmt: skip
"""A bare letter counts in powers of 1024, as `ulimit`, `docker` and `java -Xmx` do."""

EXACT_UNITS = {"GiB": 1 << 30, "GB": 10**9, "MiB": 1 << 20, "MB": 10**6, "KiB": 1 << 10}

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")


def parse_size(text: str) -> int:
    """Bytes of a size such as `2GiB`. Raises `InputError`."""
    match = _SIZE.match(text)
    if match is None or match[2].upper() not in UNITS:
        raise InputError(
            f"{text!r} is no size", hint="write it like 2GiB, 1.5GB, 800MiB or a number of bytes"
        )
    size = int(float(match[1]) * UNITS[match[2].upper()])
    if size < 1:
        raise InputError(f"the size {text!r} is less than one byte")
    return size


def format_size(size: int) -> str:
    """Bytes as a short text: `3.2 GiB`."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def exact_size(size: int) -> str:
    """The shortest of the texts that `parse_size` reads as just so many bytes: `1.5GiB`, `300MiB`."""
    texts = []
    for name, unit in EXACT_UNITS.items():
        text = f"{size / unit:g}{name}"
        if size >= unit and "e" not in text and parse_size(text) == size:
            texts.append(text)
    return min([*texts, str(size)], key=len)


def format_count(count: int) -> str:
    """A number of weights or tokens as a short text: `6.2 B`."""
    for limit, unit in ((10**9, " B"), (10**6, " M"), (10**4, " k")):
        if count >= limit:
            return f"{count / (1000 if unit == ' k' else limit):.1f}{unit}"
    return str(count)
