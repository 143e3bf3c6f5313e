"""Packages over the bridge: imported whole, continued, cancelled, refused."""

from __future__ import annotations

import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from android.java_process import DesktopHost, Message
from android.packages import (
    PADDING,
    bytes_of,
    id_of,
    manifest_of,
    write_archive,
    write_manifest,
    write_phone_package,
)

KEPT_STORAGE = 256 << 20
"""What an import leaves free on the phone."""

SLOW = 1_500_000
"""Bytes a second at which a source is read where something is to happen meanwhile."""


@pytest.fixture(scope="module")
def shared_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phone_package(tmp_path_factory.mktemp("package") / "tiny model")


@pytest.fixture
def package(shared_package: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(shared_package, tmp_path / shared_package.name))


def imported(host: DesktopHost, path: Path, kind: str = "zip") -> Message:
    host.set(pick=str(path))
    return dict(host.call("packages.import", kind=kind)["package"])


def refused_import(host: DesktopHost, path: Path, kind: str = "zip") -> Message:
    host.set(pick=str(path))
    return host.refused("packages.import", kind=kind)


def stored(host: DesktopHost, package: Path) -> Path:
    return host.folder / "packages" / id_of(package)


def assert_same_files(host: DesktopHost, package: Path) -> None:
    copy = stored(host, package)
    names = {"manifest.json", *manifest_of(package)["files"]}
    assert {path.name for path in copy.iterdir()} == names | {".name"}
    for name in names:
        assert (copy / name).read_bytes() == (package / name).read_bytes(), name


def interrupt_in_padding(host: DesktopHost, path: Path, kind: str) -> None:
    """Kills the host in the middle of an import."""
    host.set(pick=str(path), bytesPerSecond=SLOW)
    host.begin("packages.import", kind=kind)
    host.event("import.progress", lambda data: data["file"] == PADDING and data["bytes"] > 300_000)
    host.kill()


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_whole(host: DesktopHost, package: Path, kind: str) -> None:
    (package / "not-listed.txt").write_text("private")
    (package / "inner").mkdir()
    (package / "inner" / "manifest.json").write_text("{}")
    found = imported(host, write_archive(package) if kind == "zip" else package, kind)
    assert found == {
        "id": id_of(package),
        "name": "tiny model",
        "complete": True,
        "bytes": bytes_of(package),
        "copied": bytes_of(package),
        "family": manifest_of(package)["model"]["family"],
        "blocks": manifest_of(package)["model"]["num_blocks"],
        "contextLength": 1200,
        "template": True,
    }
    assert_same_files(host, package)
    assert host.call("packages.list") == {"packages": [found], "running": None}


def test_progress(host: DesktopHost, package: Path) -> None:
    imported(host, write_archive(package))
    events = [event["data"] for event in host.events if event["event"] == "import.progress"]
    total = bytes_of(package)
    assert {(event["package"], event["total"]) for event in events} == {(id_of(package), total)}
    counts = [event["bytes"] for event in events]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] > total * 0.99
    assert {event["file"] for event in events} == {"", *manifest_of(package)["files"]}


def test_folder_around_the_package(host: DesktopHost, package: Path) -> None:
    assert imported(host, package.parent, "folder")["name"] == "tiny model"
    assert_same_files(host, package)


def test_archive_without_a_folder_has_the_archives_name(host: DesktopHost, package: Path) -> None:
    path = package.parent / "von Hand.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(package.iterdir(), reverse=True):  # the manifest is not the first
            archive.write(file, file.name)
    assert imported(host, path)["name"] == "von Hand"
    assert_same_files(host, package)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_continued_after_the_app_was_killed(classes: Path, tmp_path: Path, package: Path, kind: str) -> None:
    path = write_archive(package) if kind == "zip" else package
    interrupt_in_padding(DesktopHost(classes, tmp_path / "files"), path, kind)
    with DesktopHost(classes, tmp_path / "files") as host:
        (left,) = host.call("packages.list")["packages"]
        assert not left["complete"]
        assert 300_000 < left["copied"] < left["bytes"]
        assert host.resource(f"/packages/{left['id']}/manifest.json")["status"] == 404
        assert host.refused("engine.plan", package=left["id"])["code"] == "missing"
        assert imported(host, path, kind)["complete"]
        assert_same_files(host, package)
        told = [event["data"]["bytes"] for event in host.events if event["data"]["file"] == PADDING]
        assert told[0] == left["copied"]  # not from the file's beginning


@pytest.mark.parametrize("damage", ["half", "whole"])
def test_what_was_there_is_checked(host: DesktopHost, package: Path, damage: str) -> None:
    """A half file from before that is wrong is copied anew, although the source has been passed by then."""
    host.set(pick=str(write_archive(package)), bytesPerSecond=SLOW)
    call = host.begin("packages.import", kind="zip")
    host.event("import.progress", lambda data: data["file"] == PADDING and data["bytes"] > 300_000)
    host.call("import.cancel")
    assert host.answer(call)["error"]["code"] == "cancelled"
    copied = host.folder / "packages" / (id_of(package) + ".partial") / PADDING
    size = manifest_of(package)["files"][PADDING]["size"] if damage == "whole" else copied.stat().st_size
    copied.write_bytes(b"x" * size)
    host.set(bytesPerSecond=0)
    assert imported(host, package.with_suffix(".zip"))["complete"]
    assert_same_files(host, package)


def test_cancel(host: DesktopHost, package: Path) -> None:
    assert host.call("import.cancel") == {"cancelled": False}
    host.set(pick=str(package), bytesPerSecond=SLOW)
    call = host.begin("packages.import", kind="folder")
    host.event("import.progress", lambda data: data["bytes"] > 100_000)
    assert host.refused("packages.import", kind="zip")["code"] == "busy"
    assert host.refused("packages.delete", package=id_of(package))["code"] == "busy"
    assert host.call("import.cancel") == {"cancelled": True}
    assert host.answer(call)["error"]["code"] == "cancelled"
    (left,) = host.call("packages.list")["packages"]
    assert not left["complete"]
    assert host.call("packages.delete", package=left["id"]) == {}
    assert host.call("packages.list")["packages"] == []
    assert list((host.folder / "packages").iterdir()) == []


def test_a_page_that_is_loaded_anew(host: DesktopHost, package: Path) -> None:
    """Its calls have the ids of the page before, whose answers it must not get."""
    host.set(pick=str(package), bytesPerSecond=SLOW)
    host.begin("packages.import", kind="folder")
    host.event("import.progress", lambda data: data["bytes"] > 100_000)
    host.set(opened=True)
    while host.call("import.cancel")["cancelled"]:
        pass
    (left,) = host.call("packages.list")["packages"]
    assert not left["complete"]
    host.set(bytesPerSecond=0)
    assert imported(host, package, "folder")["complete"]


def test_picker(host: DesktopHost, package: Path) -> None:
    host.set(pick=None)
    assert host.refused("packages.import", kind="zip")["code"] == "cancelled"
    assert refused_import(host, package / "nothing.zip")["code"] == "source"
    host.set(hold=True)
    host.begin("packages.import", kind="zip")
    assert host.refused("packages.import", kind="folder")["code"] == "busy"
    assert host.refused("files.save", name="a.txt", text="")["code"] == "busy"


def test_exists(host: DesktopHost, package: Path) -> None:
    imported(host, package, "folder")
    error = refused_import(host, write_archive(package))
    assert (error["code"], error["details"]) == ("exists", {"package": id_of(package)})


def test_storage(host: DesktopHost, package: Path) -> None:
    host.set(freeStorage=KEPT_STORAGE + 1000)
    error = refused_import(host, package, "folder")
    assert (error["code"], error["details"]) == ("storage", {"needed": bytes_of(package), "free": 1000})
    host.set(freeStorage=KEPT_STORAGE + bytes_of(package) - 1)
    assert refused_import(host, package, "folder")["code"] == "storage"
    host.set(freeStorage=KEPT_STORAGE + bytes_of(package))
    assert imported(host, package, "folder")["complete"]


def test_storage_that_is_full_in_the_middle(classes: Path, tmp_path: Path, package: Path) -> None:
    """The system refuses to write beyond 400 kB; the phone says that nothing is free then."""
    script = 'trap "" XFSZ; ulimit -f 400; exec "$0" "$@"'
    with DesktopHost(classes, tmp_path / "files", shell=script) as host:
        host.set(pick=str(package), bytesPerSecond=SLOW)
        call = host.begin("packages.import", kind="folder")
        host.event("import.progress", lambda data: data["bytes"] > 100_000)
        host.set(freeStorage=0)
        error = host.answer(call)["error"]
        assert error["code"] == "storage"
        assert 0 < error["details"]["needed"] < bytes_of(package)
        assert not host.call("packages.list")["packages"][0]["complete"]


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize("damage", ["changed", "shorter", "longer", "missing"])
def test_damaged_files(host: DesktopHost, package: Path, damage: str, kind: str) -> None:
    file = package / "head.mnn.weight"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    changed = {"changed": bytes(data), "shorter": bytes(data[:-1]), "longer": bytes(data) + b"\0"}
    path = pack(
        package, kind, lambda: file.unlink() if damage == "missing" else file.write_bytes(changed[damage])
    )
    error = refused_import(host, path, kind)
    assert (error["code"], error["details"]) == ("damaged", {"file": "head.mnn.weight"})
    assert not host.call("packages.list")["packages"][0]["complete"]


def pack(package: Path, kind: str, change: Callable[[], Any]) -> Path:
    """The changed package as a folder, or as an archive made without looking at it."""
    change()
    if kind == "folder":
        return package
    path = package.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(package.iterdir()):
            archive.write(file, f"{package.name}/{file.name}")
    return path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("format",), "other"),
        (("version",), 2),
        (("version",), True),
        (("model",), None),
        (("model", "num_blocks"), 0),
        (("model", "num_blocks"), 1025),
        (("model", "vocab_size"), 2**24 + 1),
        (("model", "hidden_size"), "64"),
        (("model", "num_kv_heads"), 3),
        (("model", "head_dim"), 2**24),
        (("model", "family"), 1),
        (("embedding", "dtype"), "int8"),
        (("files",), []),
        (("files", "../evil"), {"size": 0, "sha256": "0" * 64}),
        (("files", "a/b"), {"size": 0, "sha256": "0" * 64}),
        (("files", "manifest.json"), {"size": 0, "sha256": "0" * 64}),
        (("files", ".name"), {"size": 0, "sha256": "0" * 64}),
        (("files", "head.mnn.weight", "size"), -1),
        (("files", "head.mnn.weight", "size"), 2**48),
        (("files", "head.mnn.weight", "sha256"), "0" * 63),
        (("files", "head.mnn.weight", "sha256"), "A" * 64),
        (("files", "embedding.f32", "size"), 7),
    ],
)
def test_manifests_that_are_refused(
    host: DesktopHost, package: Path, field: tuple[str, ...], value: Any
) -> None:
    manifest = manifest_of(package)
    place = manifest
    for name in field[:-1]:
        place = place[name]
    place[field[-1]] = value
    write_manifest(package, manifest)
    error = refused_import(host, package, "folder")
    assert (error["code"], error["details"]) == ("package", {"file": "manifest.json"})
    assert host.call("packages.list")["packages"] == []


def test_a_block_that_is_not_listed(host: DesktopHost, package: Path) -> None:
    manifest = manifest_of(package)
    del manifest["files"]["block_00.mnn.weight"]
    write_manifest(package, manifest)
    assert refused_import(host, package, "folder")["code"] == "package"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"{}" * 2])
def test_a_manifest_that_is_not_json(host: DesktopHost, package: Path, text: bytes) -> None:
    (package / "manifest.json").write_bytes(text)
    assert refused_import(host, package, "folder")["code"] == "package"


def test_no_package_in_it(host: DesktopHost, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert refused_import(host, tmp_path / "folder", "folder")["code"] == "package"
    path = tmp_path / "a.zip"
    zipfile.ZipFile(path, "w").close()
    assert refused_import(host, path)["code"] == "package"
    path.write_bytes(b"no archive at all")
    assert refused_import(host, path)["code"] == "source"


def test_archive_that_ends_early_is_continued(host: DesktopHost, package: Path) -> None:
    whole = write_archive(package)
    cut = package.with_suffix(".cut.zip")
    cut.write_bytes(whole.read_bytes()[: bytes_of(package) * 3 // 4])
    error = refused_import(host, cut)
    assert error["code"] == "source"
    assert error["details"]["file"] in manifest_of(package)["files"]
    assert 0 < host.call("packages.list")["packages"][0]["copied"] < bytes_of(package)
    assert imported(host, whole)["complete"]
    assert_same_files(host, package)


def test_damaged_archives(host: DesktopHost, package: Path) -> None:
    """Whatever an archive holds, an import ends with a right package or with a reason; then a whole one is
    imported over what is left."""
    whole, path = write_archive(package), package.with_suffix(".damaged.zip")
    data, generator = whole.read_bytes(), random.Random(11)
    headers = [match.start() for match in re.finditer(b"PK\x03\x04", data)]
    codes = set()
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 3)):
            near = generator.choice([*headers, len(data) // 2]) + generator.randrange(64)
            damaged[near : near + generator.randint(0, 4)] = generator.randbytes(generator.randint(0, 4))
        path.write_bytes(damaged)
        host.set(pick=str(path))
        answer = host.answer(host.begin("packages.import", kind="zip"))
        if "error" in answer:
            codes.add(answer["error"]["code"])
            continue
        assert_same_files(host, package)
        host.call("packages.delete", package=id_of(package))
    assert {"source", "damaged"} <= codes <= {"source", "damaged", "package"}
    assert imported(host, whole)["complete"]
    assert_same_files(host, package)


def test_nothing_leaves_the_folder(host: DesktopHost, package: Path) -> None:
    """Names that climb out of it are not the manifest's: nothing is made of them. Of a name that comes twice,
    the first counts."""
    path = package.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../evil", "/evil", "p/../../evil", "p/..\\evil"):
            archive.writestr(name, b"evil")
        for file in sorted(package.iterdir()):
            archive.write(file, f"../p/{file.name}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("../p/generation.json", b"evil")
    before = {path for path in host.folder.parent.rglob("*") if not path.is_relative_to(host.folder)}
    assert imported(host, path)["name"] == "p"
    assert_same_files(host, package)
    assert {path for path in host.folder.parent.rglob("*") if not path.is_relative_to(host.folder)} == before
