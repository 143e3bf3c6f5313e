"""The tools that make the APK: found on the machine, or fetched once into the user's cache folder.

Google's SDK is not needed. Debian's packages are installed by the user; dx, the stubs of Android's API and
enjarify (for the tests) come from Debian 11, which are checked by their SHA-256 and unpacked without being
installed; Zig comes from PyPI.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from failure import BuildError, MissingToolError, run

ZIG_VERSION = "0.17.1"
MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")
"""Debian 11 moves from the first to the second some day. POCKETGLM_DEBIAN_MIRROR names another."""

INSTALLED = {
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "javac": "openjdk-17-jdk-headless",
    "java": "openjdk-17-jdk-headless",
    "keytool": "openjdk-17-jdk-headless",
}
"""Command -> the Debian package that has it."""
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")


@dataclass(frozen=True)
class DebianFile:
    """A file of a package of Debian 11. `version` and `sha256` are the package's."""

    package: str
    version: str
    sha256: str
    path: str


DX = DebianFile(
    "dalvik-exchange",
    "10.0.0+r36-1",
    "8fc128db7c27253d963eb9b33de79b197162a4749d2ba69019b2fd0664cbd7fe",
    "usr/share/java/com.android.dx-10.0.0.jar",
)
ANDROID_23 = DebianFile(
    "libandroid-23-java",
    "6.0.1+r72-6",
    "8af1b6df556971dda0a6da3536ea526a838e0c363afcdd454213d8bce94793e3",
    "usr/share/java/com.android.android-23.jar",
)
ENJARIFY = DebianFile(
    "enjarify",
    "1:1.0.3-5",
    "040e72e7154ec1fb8fd234ebd31c3ae24d95553890fe7d8bd741da396d575f8c",
    "usr/lib/python3/dist-packages",
)


def cache_directory() -> Path:
    """Where fetched tools and the debug key are kept: `android` in PocketGLM's cache folder."""
    if chosen := os.environ.get("POCKETGLM_CACHE"):
        return Path(chosen).absolute() / "android"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return Path(xdg if os.path.isabs(xdg) else Path.home() / ".cache") / "pocketglm" / "android"


def command(name: str) -> str:
    """The path of an installed command; also of what pip put beside this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        package = INSTALLED.get(name, name)
        raise MissingToolError(f"{name} was not found", f"On Debian and Ubuntu: apt install {package}")
    return found


def framework() -> Path:
    """Android's own resources, which the manifest and the layouts refer to."""
    if not FRAMEWORK.is_file():
        raise MissingToolError(
            f"{FRAMEWORK} was not found",
            "On Debian: apt install --no-install-recommends android-framework-res",
        )
    return FRAMEWORK


def debian_file(wanted: DebianFile) -> Path:
    """The file, from the cache or fetched. Needs apt-get and dpkg where it is not there yet."""
    folder = cache_directory() / f"{wanted.package}-{wanted.sha256[:12]}"
    if not folder.is_dir():
        apt, dpkg = command("apt-get"), command("dpkg")
        _make_folder(folder, lambda new: _unpack(dpkg, _download(apt, wanted, new), new))
    return folder / wanted.path


def zig() -> Path:
    """Zig's program: a C++ compiler for arm64 with the musl C library."""
    folder = cache_directory() / f"ziglang-{ZIG_VERSION}"
    if not folder.is_dir():
        _make_folder(folder, _install_zig)
    return folder / "ziglang" / "zig"


def zig_environment() -> dict[str, str]:
    """Zig's compiled C and C++ libraries are kept as well: they take two minutes."""
    cache = str(cache_directory() / "zig")
    return {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}


def _make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """The folder appears whole or not at all, also where two builds fetch at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(new)
        os.replace(new, folder)
    except OSError as error:
        if not folder.is_dir():
            raise BuildError(f"{folder}: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _install_zig(new: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    try:
        run([*pip, "--target", new, f"ziglang=={ZIG_VERSION}"], "pip could not install Zig from PyPI")
    except BuildError as error:
        raise MissingToolError(str(error)) from error


def _download(apt: str, wanted: DebianFile, new: Path) -> Path:
    """The package as a file, through apt with settings and lists of its own beside the machine's."""
    work = new / "apt"
    named = os.environ.get("POCKETGLM_DEBIAN_MIRROR")
    problem = ""
    for mirror in [named] if named else MIRRORS:
        try:
            apt_get = [apt, "-q", "-c", str(_apt_settings(work, mirror))]
            run([*apt_get, "update"], f"apt could not read the lists of {mirror}")
            package = f"{wanted.package}={wanted.version}"
            run(
                ["sh", "-c", 'cd "$1" && shift && "$@"', "sh", work, *apt_get, "download", package],
                f"apt could not fetch {package} from {mirror}",
            )
        except BuildError as error:
            problem = str(error)
            continue
        (fetched,) = work.glob("*.deb")
        return _checked(fetched, wanted)
    raise MissingToolError(problem, "A mirror with Debian 11 can be named in POCKETGLM_DEBIAN_MIRROR")


def _apt_settings(work: Path, mirror: str) -> Path:
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb {mirror} bullseye main\n")
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        # An archived release's lists are past their date. What is fetched is checked by its hash.
        "Acquire::Check-Valid-Until": "false",
        "APT::Sandbox::User": "root",
    }
    path = work / "apt.conf"
    path.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return path


def _checked(fetched: Path, wanted: DebianFile) -> Path:
    found = hashlib.sha256(fetched.read_bytes()).hexdigest()
    if found != wanted.sha256:
        raise BuildError(f"{wanted.package}: SHA-256 is {found}, expected {wanted.sha256}")
    return fetched


def _unpack(dpkg: str, package: Path, new: Path) -> None:
    run([dpkg, "-x", package, new], f"{package.name} could not be unpacked")
    shutil.rmtree(new / "apt")
