"""The packages that are there: list, rename, delete, the small files that the page reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from android.java_process import DesktopHost, Message
from android.packages import id_of, write_phone_package
from generate.tiny_models import write_tiny


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_phone_package(tmp_path / "tiny", padding=100)


@pytest.fixture
def found(host: DesktopHost, package: Path) -> Message:
    host.set(pick=str(package))
    return dict(host.call("packages.import", kind="folder")["package"])


def test_rename(host: DesktopHost, found: Message) -> None:
    for name in ("聊天 👍🏽", "a/../b", "x" * 80):
        assert host.call("packages.rename", package=found["id"], name=name) == {
            "package": found | {"name": name}
        }
    assert host.call("packages.list")["packages"] == [found | {"name": "x" * 80}]


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\nb", "a\x00", "\x7f"])
def test_names_that_are_refused(host: DesktopHost, found: Message, name: str) -> None:
    assert host.refused("packages.rename", package=found["id"], name=name)["code"] == "request"
    assert host.call("packages.list")["packages"] == [found]


def test_listed_by_name(host: DesktopHost, found: Message, tmp_path: Path) -> None:
    host.call("packages.rename", package=found["id"], name="m")
    for seed, name in enumerate(("Z", "a", "M")):
        host.set(pick=str(write_phone_package(tmp_path / name, seed + 1, padding=1)))
        host.call("packages.import", kind="folder")
    names = [package["name"] for package in host.call("packages.list")["packages"]]
    assert [name.lower() for name in names] == ["a", "m", "m", "z"]


def test_delete(host: DesktopHost, found: Message) -> None:
    assert host.call("packages.delete", package=found["id"]) == {}
    assert list((host.folder / "packages").iterdir()) == []
    assert host.refused("packages.delete", package=found["id"])["code"] == "missing"


@pytest.mark.parametrize("method", ["packages.rename", "packages.delete"])
@pytest.mark.parametrize("name", ["0" * 16, "..", "", ".", "x/../" + "0" * 16, "0" * 16 + ".partial"])
def test_missing(host: DesktopHost, method: str, name: str) -> None:
    more = {"name": "n"} if method == "packages.rename" else {}
    assert host.refused(method, package=name, **more)["code"] == "missing"


def test_deleted_to_the_end_at_the_next_start(classes: Path, tmp_path: Path) -> None:
    left = tmp_path / "files" / "packages" / ("0" * 16 + ".deleted")
    left.mkdir(parents=True)
    (left / "block").write_bytes(b"1")
    with DesktopHost(classes, tmp_path / "files") as host:
        assert host.call("packages.list")["packages"] == []
        assert not left.exists()


def test_a_folder_that_is_no_package_can_be_deleted(host: DesktopHost) -> None:
    folder = host.folder / "packages" / ("0" * 16)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (listed,) = host.call("packages.list")["packages"]
    assert (listed["complete"], listed["name"]) == (False, "0" * 16)
    host.call("packages.delete", package="0" * 16)
    assert not folder.exists()


def test_small_files(host: DesktopHost, found: Message, package: Path) -> None:
    for name in ("manifest.json", "tokenizer.json", "chat_template.jinja", "generation.json"):
        answer = host.resource(f"/packages/{found['id']}/{name}")
        assert (answer["status"], answer["body"]) == (200, (package / name).read_text("utf-8"))
        assert answer["type"] == ("application/json" if name.endswith("json") else "text/plain")


def test_a_small_file_that_is_not_there(host: DesktopHost, tmp_path: Path) -> None:
    package = write_tiny(tmp_path / "p", template=None)
    host.set(pick=str(package))
    assert not host.call("packages.import", kind="folder")["package"]["template"]
    assert host.resource(f"/packages/{id_of(package)}/chat_template.jinja")["status"] == 404
    assert host.resource("/packages/0000000000000000/tokenizer.json")["status"] == 404


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/packages",
        "/packages/{id}",
        "/packages/{id}/",
        "/packages/{id}/head.mnn.weight",
        "/packages/{id}/.name",
        "/packages/{id}/x/tokenizer.json",
        "/packages/{id}/../{id}/tokenizer.json",
        "packages/{id}/tokenizer.json",
        "/other/{id}/tokenizer.json",
        "/packages/{id}/tokenizer.json/",
    ],
)
def test_other_addresses(host: DesktopHost, found: Message, path: str) -> None:
    assert host.resource(path.format(id=found["id"])) == {
        "resource": path.format(id=found["id"]),
        "status": 403,
        "type": "text/plain",
        "body": "",
    }


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json"])
def test_damaged_small_files_are_not_given(host: DesktopHost, found: Message, name: str) -> None:
    path = host.folder / "packages" / found["id"] / name
    path.write_bytes(path.read_bytes() + b" ")
    assert host.resource(f"/packages/{found['id']}/{name}")["status"] == 500
    path.unlink()
    assert host.resource(f"/packages/{found['id']}/{name}")["status"] == 500


def test_save_and_copy(host: DesktopHost, tmp_path: Path) -> None:
    host.set(pick=str(tmp_path))
    assert host.call("files.save", name="chat.json", text="你\n\u2028") == {"saved": True}
    assert (tmp_path / "chat.json").read_text("utf-8") == "你\n\u2028"
    host.set(pick=None)
    assert host.call("files.save", name="chat.json", text="") == {"saved": False}
    host.set(pick=str(tmp_path / "nowhere"))
    assert host.refused("files.save", name="chat.json", text="")["code"] == "internal"
    for name in ("", "a/b", "x" * 201):
        assert host.refused("files.save", name=name, text="")["code"] == "request"
    assert host.call("clipboard.write", text="聊天") == {}
    assert (host.folder / "clipboard").read_text("utf-8") == "聊天"
