"""What the APK's build says where it cannot work, and what it makes of a key."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from android.apk import BUILD_TIMEOUT, MISSING_TOOL, ROOT, build_tool, command

SCRIPT = ROOT / "android" / "build.py"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """android/tools.py with an empty cache folder."""
    monkeypatch.setenv("POCKETGLM_CACHE", str(tmp_path / "cache"))
    return build_tool("tools")


def run_build(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)


def raised(error: str, tools: ModuleType, action: Callable[[], Any]) -> Any:
    """What it raises, which must be the build's error of this name."""
    kind = getattr(tools, error)
    with pytest.raises(kind) as caught:
        action()
    return caught.value


def test_a_missing_tool(tools: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    error = raised("MissingToolError", tools, lambda: tools.command("javac"))
    assert str(error) == "javac was not found"
    assert error.hint == "On Debian and Ubuntu: apt install openjdk-17-jdk-headless"


def test_the_program_without_tools(tmp_path: Path) -> None:
    done = run_build(tmp_path, tmp_path / "a.apk", PATH="", POCKETGLM_CACHE=str(tmp_path / "cache"))
    assert done.returncode == MISSING_TOOL
    assert "error: the app was not built: keytool was not found" in done.stderr
    assert "hint: On Debian and Ubuntu: apt install openjdk-17-jdk-headless" in done.stderr


def test_no_mirror(tools: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    command("apt-get")
    monkeypatch.setenv("POCKETGLM_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    error = raised("MissingToolError", tools, lambda: tools.debian_file(tools.DX))
    assert "127.0.0.1:9" in str(error)
    assert "POCKETGLM_DEBIAN_MIRROR" in error.hint
    assert list(tools.cache_directory().iterdir()) == []


def test_another_file_under_the_name(tools: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "dx.deb").write_bytes(b"something else")
    error = raised("BuildError", tools, lambda: tools._checked(tmp_path / "dx.deb", tools.DX))
    assert str(error).startswith("dalvik-exchange: SHA-256 is ")
    assert tools.DX.sha256 in str(error)


def test_keys(tmp_path: Path) -> None:
    output = tmp_path / "a.apk"
    done = run_build(tmp_path, output, "--keystore", tmp_path / "nothing.jks")
    assert done.returncode == 1
    assert "nothing.jks: there is no key store" in done.stderr
    (tmp_path / "my.jks").write_bytes(b"")
    done = run_build(
        tmp_path, output, POCKETGLM_KEYSTORE=str(tmp_path / "my.jks"), POCKETGLM_KEYSTORE_PASSWORD=""
    )
    assert done.returncode == 1
    assert "hint: Set POCKETGLM_KEYSTORE_PASSWORD" in done.stderr


@pytest.mark.timeout(BUILD_TIMEOUT)
def test_a_key_of_ones_own(apk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is that key's: Android takes an update only from whom the app is."""
    keytool, apksigner = command("keytool"), command("apksigner")
    keystore, signed = tmp_path / "my.p12", tmp_path / "signed.apk"
    make = [keytool, "-genkeypair", "-keystore", str(keystore), "-storepass", "secret word", "-alias", "me"]
    make += ["-keyalg", "RSA", "-validity", "1000", "-dname", "CN=Somebody"]
    subprocess.run(make, check=True, capture_output=True)
    monkeypatch.setenv("POCKETGLM_KEYSTORE", str(keystore))
    monkeypatch.setenv("POCKETGLM_KEYSTORE_PASSWORD", "secret word")
    signing = build_tool("signing")
    signing.sign(apk, signed, signing.chosen_key(None, "me"))
    said = subprocess.run(
        [apksigner, "verify", "--print-certs", str(signed)],
        capture_output=True,
        text=True,
    )
    assert "certificate DN: CN=Somebody" in said.stdout
    monkeypatch.setenv("POCKETGLM_KEYSTORE_PASSWORD", "another")
    with pytest.raises(signing.BuildError, match="The APK was not signed"):
        signing.sign(apk, signed, signing.chosen_key(None, "me"))


def test_archives_do_not_depend_on_order_or_time(tmp_path: Path) -> None:
    archive = build_tool("archive")
    entries = [
        archive.Entry(name, name.encode() * 100) for name in ("b", "resources.arsc", "AndroidManifest.xml")
    ]
    paths = [tmp_path / "one.apk", tmp_path / "two.apk"]
    archive.write_archive(paths[0], entries)
    archive.write_archive(paths[1], entries[::-1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as written:
        assert written.namelist() == ["AndroidManifest.xml", "b", "resources.arsc"]
        assert {info.compress_type for info in written.infolist() if info.filename == "resources.arsc"} == {0}
