"""Builds the APK from the sources, without Google's SDK.

    python android/build.py PAGE OUTPUT [--keystore FILE [--key-alias NAME]]

PAGE is the page's folder (`make phone-page`), OUTPUT the APK. It is signed with the key that --keystore or
POCKETGLM_KEYSTORE names, its password in POCKETGLM_KEYSTORE_PASSWORD; without either, with a debug key that
is made once in the user's cache folder. The same sources and key give the same bytes. Exits with 3 where a
tool is missing, with 1 on any other error.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tools
from archive import Entry, write_archive
from failure import BuildError, MissingToolError, run
from phone_engine import ROOT, build_engine
from signing import SigningKey, chosen_key, sign

APP = ROOT / "android" / "app"
JAVA = (APP, ROOT / "android" / "core")
STUBS = ROOT / "android" / "stubs"
ENGINE_NAME = "lib/arm64-v8a/libpocketglm_engine.so"
"""Android unpacks what has such a name, and lets the app start it."""
MIN_SDK = 26


def version() -> tuple[str, int]:
    """The project's version, and the number by which Android tells newer from older."""
    match = re.search(
        r'^version = "((\d+)\.(\d+)\.(\d+))"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert match is not None
    major, minor, patch = (int(part) for part in match.groups()[1:])
    return match[1], major * 1_000_000 + minor * 1_000 + patch


def compile_resources(work: Path) -> Path:
    """An APK with manifest and resources alone; R.java, their numbers, goes to `work`."""
    name, code = version()
    base, sources = work / "base.apk", work / "generated"
    sources.mkdir()
    options = ["--version-name", name, "--version-code", str(code), "--min-sdk-version", str(MIN_SDK)]
    options += ["--target-sdk-version", "34", "-M", str(APP / "AndroidManifest.xml"), "-S", str(APP / "res")]
    aapt = [
        tools.command("aapt"),
        "package",
        "-f",
        *options,
        "-I",
        str(tools.framework()),
        "-J",
        str(sources),
    ]
    run([*aapt, "-F", base], "The app's resources were not compiled")
    return base


def compile_java(work: Path) -> Path:
    """classes.dex of the app and its host. Java 8 without lambdas: dx turns nothing newer into dex.

    The API is that of Android 6; what came later and we need is in `stubs`, which stay out of the app.
    """
    sources = [path for folder in (*JAVA, work / "generated") for path in sorted(folder.rglob("*.java"))]
    classes, stubs, dex = work / "classes", work / "stubs", work / "classes.dex"
    android = tools.debian_file(tools.ANDROID_23)
    javac = [tools.command("javac"), "-source", "8", "-target", "8", "-encoding", "UTF-8"]
    javac += ["-g:source,lines", "-Xlint:all,-options", "-Werror", "-bootclasspath", f"{stubs}:{android}"]
    for folder, files in ((stubs, sorted(STUBS.rglob("*.java"))), (classes, sources)):
        folder.mkdir()
        run([*javac, "-d", folder, *files], "The app's Java was not compiled")
    dx = [
        tools.command("java"),
        "-cp",
        str(tools.debian_file(tools.DX)),
        "com.android.dx.command.Main",
        "--dex",
    ]
    run(
        [*dx, f"--min-sdk-version={MIN_SDK}", f"--output={dex}", classes],
        "The app's Java was not turned into dex",
    )
    return dex


def entries(base: Path, dex: Path, engine: Path, page: Path) -> list[Entry]:
    """All files of the APK."""
    if not (page / "index.html").is_file():
        raise BuildError(f"{page}: there is no page", "make phone-page builds it")
    assets = [path for path in sorted(page.rglob("*")) if path.is_file()]
    return [
        *Entry.of_archive(base),
        Entry("classes.dex", dex.read_bytes()),
        Entry(ENGINE_NAME, engine.read_bytes()),
        *(Entry(f"assets/page/{path.relative_to(page).as_posix()}", path.read_bytes()) for path in assets),
    ]


def build(page: Path, output: Path, key: SigningKey) -> None:
    """The signed APK; on an error an older one is gone, so that it is never taken for the new one."""
    output.unlink(missing_ok=True)
    work = ROOT / "build" / "android"
    engine = build_engine(work / "engine")
    steps = work / "apk"
    shutil.rmtree(steps, ignore_errors=True)
    steps.mkdir(parents=True)
    base = compile_resources(steps)
    dex = compile_java(steps)
    write_archive(steps / "unaligned.apk", entries(base, dex, engine, page))
    zipalign = [tools.command("zipalign"), "-p", "4"]
    run([*zipalign, steps / "unaligned.apk", steps / "aligned.apk"], "The APK was not aligned")
    sign(steps / "aligned.apk", output, key)


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the Android app.")
    parser.add_argument("page", type=Path, help="folder of the page")
    parser.add_argument("output", type=Path, help="the APK")
    parser.add_argument("--keystore", type=Path, help="a Java or PKCS #12 key store")
    parser.add_argument("--key-alias", help="the key's name in it, where it has several")
    options = parser.parse_args()
    try:
        build(options.page, options.output, chosen_key(options.keystore, options.key_alias))
    except (BuildError, OSError) as error:
        print(f"error: the app was not built: {error}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(f"hint: {hint}", file=sys.stderr)
        return 3 if isinstance(error, MissingToolError) else 1
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
