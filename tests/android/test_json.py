"""The host's JSON reader beside Python's and the engine's rules."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from android.java_process import Probe


def read(probe: Probe, text: bytes) -> Any:
    return probe.ask("json", hex=text.hex())


@pytest.mark.parametrize(
    "text",
    [
        '{"a":[1,-2,0.5,1e3,-0,true,false,null,"",{}],"":[]}',
        " \t\r\n[ 1 , 2 ]\n ",
        r'"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"',
        '"\x7f  你好 👍🏽"',
        "9223372036854775807",
        "-9223372036854775808",
        "1e-400",
        "[[[[[[[[1]]]]]]]]",
    ],
)
def test_values(probe: Probe, text: str) -> None:
    assert read(probe, text.encode()) == {"answer": json.loads(text)}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"[1 2]",
        b'{"a":1,}',
        b'{"a":1,"a":2}',
        b'{"a" 1}',
        b"{1:2}",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1e",
        b"1e400",
        b"-",
        b"NaN",
        b"Infinity",
        b"tru",
        b"nulll",
        b"1 1",
        b"\xef\xbb\xbf1",
        b'"',
        b'"\\"',
        b'"\x00"',
        b'"\n"',
        b'"\\x41"',
        b'"\\u12g4"',
        b'"\\u12"',
        '"\\u١٢٣٤"'.encode(),  # digits, but not JSON's
        b'"\\ud800"',
        b'"\\ud800\\u0041"',
        b'"\\udc00"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b"[[[[[[[[[1]]]]]]]]]",
        b"\x001",
    ],
)
def test_refusals(probe: Probe, text: bytes) -> None:
    assert read(probe, text)["code"] == "JsonException"


def test_integers_beyond_64_bits_are_numbers(probe: Probe) -> None:
    assert read(probe, b"9223372036854775808") == {"answer": 2.0**63}


def test_damaged_texts(probe: Probe) -> None:
    """Like Python's reader, which is less strict only where a name occurs twice or half a pair stands."""
    generator = random.Random(5)
    seed = json.dumps({"id": 7, "method": "engine.send", "params": {"line": 'é\n"\\ 你', "x": [1.5e3, None]}})
    for _ in range(1500):
        text = bytearray(
            seed.encode()
            if generator.random() < 0.5
            else json.dumps(json.loads(seed), ensure_ascii=False).encode()
        )
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(text))
            change = generator.choice([b"", b'"', b"\\", b"{", b"]", b",", b"0", b"e", b"\xff", b"\\u"])
            text[place : place + generator.randint(0, 2)] = change
        found = read(probe, bytes(text))
        try:
            expected = json.loads(bytes(text).decode(), parse_constant=lambda name: {}[name])
        except (ValueError, KeyError):
            assert found["code"] == "JsonException", bytes(text)
        else:
            assert "code" in found or found["answer"] == expected, bytes(text)
