"""Sizes: what people write, and what they read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketglm.cli.sizes import exact_size, format_count, format_size, parse_size
from pocketglm.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512B", 512),
        ("2GiB", 2 << 30),
        ("1.5GB", 1_500_000_000),
        ("800MiB", 800 << 20),
        ("800 mib", 800 << 20),
        ("64k", 64 << 10),
        ("3G", 3 << 30),
        ("0.5T", 1 << 39),
        ("10KB", 10_000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1GiBs", "1,5GB", "0", "0.1B", "1e9", "two"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (3 << 29, "1.5GiB"), (300 << 20, "300MiB"), (2 * 10**9, "2GB"), (1500 * 10**6, "1.5GB"),
        (64 << 10, "64KiB"), (1234567891, "1234567891"), (1, "1"),
    ],
)  # fmt: skip
def test_sizes_are_written_as_people_write_them(size: int, text: str) -> None:
    assert exact_size(size) == text


@given(st.integers(1, 1 << 45) | st.integers(1, 1 << 20).map(lambda size: size << 20))
def test_what_is_written_is_read_as_it_was(size: int) -> None:
    assert parse_size(exact_size(size)) == size


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (9999, "9999"), (64_000, "64.0 k"), (6_200_000_000, "6.2 B")]
)
def test_counts_are_shown(count: int, text: str) -> None:
    assert format_count(count) == text
