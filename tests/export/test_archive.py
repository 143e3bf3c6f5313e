from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from engine.contract_specs import FORMATS, SPECS
from engine.tiny_packages import random_tensors, write_package
from pocketglm.errors import InputError, PackageError
from pocketglm.export.archive import export_zip
from pocketglm.package.reader import Package
from pocketglm.package.verify import verify_package

SPEC = SPECS["plain"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package", SPEC, random_tensors(SPEC), FORMATS["int4-g32"])


def test_round_trip(package: Path, tmp_path: Path) -> None:
    (package / "not-listed.txt").write_text("private")
    archive = export_zip(package, tmp_path / "out.zip")
    with zipfile.ZipFile(archive) as opened:
        assert {item.compress_type for item in opened.infolist()} == {zipfile.ZIP_STORED}
        assert opened.testzip() is None
        opened.extractall(tmp_path / "unpacked")
    copy = tmp_path / "unpacked" / "package"
    assert not (copy / "not-listed.txt").exists()
    verify_package(copy)
    with Package.open(package) as one, Package.open(copy) as other:
        assert one.fingerprint == other.fingerprint


def test_equal_packages_give_equal_bytes(package: Path, tmp_path: Path) -> None:
    first = export_zip(package, tmp_path / "1.zip").read_bytes()
    assert export_zip(package, tmp_path / "2.zip").read_bytes() == first


def test_progress_ends_near_the_total(package: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    export_zip(package, tmp_path / "out.zip", lambda *step: seen.append(step))
    assert seen[0][:2] == ("manifest.json", 0)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert all(done < total for _, done, total in seen)


def test_existing_output_is_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        export_zip(package, tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == b"mine"


def test_damaged_package_leaves_nothing(package: Path, tmp_path: Path) -> None:
    (package / "head.mnn.weight").unlink()
    with pytest.raises(PackageError, match=r"head\.mnn\.weight"):
        export_zip(package, tmp_path / "out.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
