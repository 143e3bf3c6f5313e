"""The APK as others read it: Android's tools, and a parser that shares nothing with them."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

import pocketglm
from android.apk import BUILD_TIMEOUT, ENGINE, NAMED, PAGE, build_apk, command

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)

NAMESPACE = "{http://schemas.android.com/apk/res/android}"
MOST_BYTES = 3_000_000


def output_of(*words: str | Path) -> str:
    done = subprocess.run([command(str(words[0])), *map(str, words[1:])], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def manifest(apk: Path) -> Any:
    parser = pytest.importorskip("pyaxmlparser", reason="pyaxmlparser is not installed")
    return parser.APK(str(apk)).get_android_manifest_xml()


def test_what_android_would_show(apk: Path) -> None:
    badging = output_of("aapt", "dump", "badging", apk)
    for line in (
        "package: name='dev.pocketglm.app' versionCode='1000' ",
        f" versionName='{pocketglm.__version__}' ",
        "sdkVersion:'26'",
        "targetSdkVersion:'34'",
        "application-label-zh:'PocketGLM'",
        "launchable-activity: name='dev.pocketglm.app.MainActivity'",
        "native-code: 'arm64-v8a'",
    ):
        assert line in badging
    assert "uses-permission" not in badging
    assert "application-debuggable" not in badging


def test_the_signature(apk: Path) -> None:
    said = output_of("apksigner", "verify", "--verbose", "--min-sdk-version", "26", apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in said
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in said


def test_a_changed_apk_is_refused(apk: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.apk"
    data = bytearray(apk.read_bytes())
    data[len(data) // 3] ^= 1
    changed.write_bytes(data)
    done = subprocess.run([command("apksigner"), "verify", str(changed)], capture_output=True)
    assert done.returncode != 0


def test_the_files(apk: Path) -> None:
    """The page as it was built, one dex, one program; nothing else, nothing large."""
    with zipfile.ZipFile(apk) as archive:
        names = set(archive.namelist())
        page = {
            f"assets/page/{path.relative_to(PAGE).as_posix()}" for path in PAGE.rglob("*") if path.is_file()
        }
        assert names == page | {
            "AndroidManifest.xml",
            "classes.dex",
            "resources.arsc",
            "res/drawable/lines.xml",
            "res/mipmap-anydpi-v26/ic_launcher.xml",
            ENGINE,
        }
        assert archive.read("assets/page/index.html") == (PAGE / "index.html").read_bytes()
        # Android 11 and newer want it so
        assert archive.getinfo("resources.arsc").compress_type == zipfile.ZIP_STORED
        assert archive.read(ENGINE)[:5] == b"\x7fELF\x02"
    assert apk.stat().st_size < MOST_BYTES
    output_of("zipalign", "-c", "-p", "4", apk)


def attributes(element: Any) -> dict[str, str]:
    return {name.removeprefix(NAMESPACE): value for name, value in element.attrib.items()}


def test_the_manifest(manifest: Any) -> None:
    """No permission of any kind; the engine unpacked; models in no backup; one door, for the launcher."""
    kinds = {element.tag for element in manifest.iter() if isinstance(element.tag, str)}
    assert not {kind for kind in kinds if "permission" in kind}
    application = attributes(manifest.find("application"))
    wanted = {"extractNativeLibs": "true", "allowBackup": "false", "usesCleartextTraffic": "false"}
    assert {**application, **wanted} == application
    assert "debuggable" not in application
    (activity,) = manifest.findall("application/*[intent-filter]")
    assert [attributes(action)["name"] for action in activity.iter("action")] == [
        "android.intent.action.MAIN"
    ]
    assert not {"service", "receiver", "provider", "activity-alias"} & kinds


def test_the_window_stays_when_the_screen_turns(manifest: Any) -> None:
    """orientation, screenSize, smallestScreenSize, screenLayout, uiMode, keyboardHidden, density, locale."""
    (activity,) = manifest.iter("activity")
    changes = int(attributes(activity)["configChanges"], 16)
    wanted = 0x80 | 0x400 | 0x800 | 0x100 | 0x200 | 0x20 | 0x1000 | 0x4
    assert changes & wanted == wanted


def test_texts_in_both_languages(apk: Path) -> None:
    resources = output_of("aapt", "dump", "--values", "resources", apk)
    texts = re.findall(r"resource \S+ \S+:string/no_webview: t=.*\n\s+\(string8\) \"(.*)\"", resources)
    assert len(texts) == 2
    assert texts[0].isascii()
    assert "未安装" in texts[1]


def test_the_same_bytes_again(apk: Path, tmp_path: Path) -> None:
    """The same sources, the same key, the same APK."""
    if NAMED in os.environ:
        pytest.skip(f"{NAMED} names an APK of other sources, perhaps")
    assert build_apk(tmp_path / "again.apk").read_bytes() == apk.read_bytes()
