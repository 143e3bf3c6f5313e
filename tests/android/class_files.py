"""What Java classes name of other classes: the constant pools of class files (JVM specification, chapter 4).

Enters: the bytes of a class file. Leaves: its members, its ancestors, and the members it refers to.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

UTF8, CLASS, FIELD, METHOD, INTERFACE_METHOD, NAME_AND_TYPE = 1, 7, 9, 10, 11, 12
INVOKE_DYNAMIC = 18
SIZES = {3: 4, 4: 4, 5: 8, 6: 8, CLASS: 2, 8: 2, FIELD: 4, METHOD: 4, INTERFACE_METHOD: 4, NAME_AND_TYPE: 4}
SIZES |= {15: 3, 16: 2, 17: 4, INVOKE_DYNAMIC: 4, 19: 2, 20: 2}
"""Tag of a constant -> bytes after the tag; text has a length instead."""
WIDE = (5, 6)
"""Long and double take two numbers of the pool."""

Member = tuple[str, str, str]
"""Class, name, type."""


@dataclass(frozen=True)
class ClassFile:
    """`members` are its own fields and methods as name and type; `references` those of any class."""

    name: str
    ancestors: tuple[str, ...]
    members: frozenset[tuple[str, str]]
    references: frozenset[Member]
    classes: frozenset[str]
    is_dynamic: bool


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.stream = io.BytesIO(data)

    def number(self, size: int) -> int:
        return int.from_bytes(self.stream.read(size), "big")

    def skip(self, size: int) -> None:
        self.stream.seek(size, io.SEEK_CUR)


def read_class(data: bytes) -> ClassFile:
    reader = _Reader(data)
    assert reader.number(4) == 0xCAFEBABE
    reader.skip(4)
    pool = _read_pool(reader)
    reader.skip(2)
    name, parent = reader.number(2), reader.number(2)
    interfaces = [reader.number(2) for _ in range(reader.number(2))]
    members = _read_members(reader, pool) | _read_members(reader, pool)
    ancestors = [_class_name(pool, index) for index in (parent, *interfaces) if index]
    return ClassFile(
        _class_name(pool, name),
        tuple(ancestors),
        frozenset(members),
        frozenset(_references(pool)),
        frozenset(_text(pool, entry[1]) for entry in pool.values() if entry[0] == CLASS),
        any(entry[0] == INVOKE_DYNAMIC for entry in pool.values()),
    )


def read_jar(jar: Path) -> dict[str, ClassFile]:
    """All classes by their names, `java/lang/Object`."""
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if name.endswith(".class")]
        classes = [read_class(archive.read(name)) for name in names]
    return {found.name: found for found in classes}


Pool = dict[int, tuple[int, bytes]]


def _read_pool(reader: _Reader) -> Pool:
    pool: Pool = {}
    count, index = reader.number(2), 1
    while index < count:
        tag = reader.number(1)
        size = reader.number(2) if tag == UTF8 else SIZES[tag]
        pool[index] = (tag, reader.stream.read(size))
        index += 2 if tag in WIDE else 1
    return pool


def _read_members(reader: _Reader, pool: Pool) -> set[tuple[str, str]]:
    """Fields, or methods."""
    members = set()
    for _ in range(reader.number(2)):
        reader.skip(2)
        name, kind = reader.number(2), reader.number(2)
        members.add((pool[name][1].decode(), pool[kind][1].decode()))
        for _ in range(reader.number(2)):
            reader.skip(2)
            reader.skip(reader.number(4))
    return members


def _references(pool: Pool) -> set[Member]:
    found = set()
    for tag, data in pool.values():
        if tag in (FIELD, METHOD, INTERFACE_METHOD):
            owner, name_and_type = struct.unpack(">HH", data)
            name, kind = struct.unpack(">HH", pool[name_and_type][1])
            found.add((_class_name(pool, owner), pool[name][1].decode(), pool[kind][1].decode()))
    return found


def _class_name(pool: Pool, index: int) -> str:
    return _text(pool, pool[index][1])


def _text(pool: Pool, reference: bytes) -> str:
    return pool[int.from_bytes(reference, "big")][1].decode()
