"""The shipped dex: it names nothing that the first Android it runs on does not have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from android.apk import BUILD_TIMEOUT, ROOT, build_tool, command, extract
from android.class_files import ClassFile, read_jar
from android.phone_process import classes_of_dex

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)

LATER = {"android/webkit/RenderProcessGoneDetail"}
"""What came between the API's stubs (Android 6) and the app's first Android (8)."""


@pytest.fixture(scope="module")
def shipped(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassFile]:
    command("java")
    return read_jar(classes_of_dex(apk, tmp_path_factory.mktemp("dex")))


@pytest.fixture(scope="module")
def android_23(apk: Path) -> dict[str, ClassFile]:
    tools = build_tool("tools")
    return read_jar(tools.debian_file(tools.ANDROID_23))


@pytest.fixture(scope="module")
def dex(apk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(apk, "classes.dex", tmp_path_factory.mktemp("dex"))


def has_member(classes: dict[str, ClassFile], owner: str, member: tuple[str, str]) -> bool:
    """Its own, or inherited."""
    if owner.startswith("["):
        owner = "java/lang/Object"
    found = classes.get(owner)
    if found is None:
        return False
    return member in found.members or any(has_member(classes, above, member) for above in found.ancestors)


def test_every_reference_is_in_the_api(
    shipped: dict[str, ClassFile], android_23: dict[str, ClassFile]
) -> None:
    known = android_23 | shipped
    for found in shipped.values():
        named = {name.lstrip("[L").rstrip(";") if name.startswith("[") else name for name in found.classes}
        missing = {name for name in named if len(name) > 1} - set(known) - LATER
        assert not missing, found.name
        for owner, *member in found.references:
            assert has_member(known, owner, (member[0], member[1])), (found.name, owner, member)


def test_the_check_finds_what_is_missing(android_23: dict[str, ClassFile]) -> None:
    """Calls that came with Android 7 and 8, and one that was always there."""
    trim = ("onTrimMemory", "(I)V")
    assert has_member(android_23, "android/app/Application", trim)
    since_7 = ("removeIf", "(Ljava/util/function/Predicate;)Z")
    assert not has_member(android_23, "java/util/ArrayList", since_7)
    since_8 = ("waitFor", "(JLjava/util/concurrent/TimeUnit;)Z")
    assert not has_member(android_23, "java/lang/Process", since_8)


def test_no_lambdas(shipped: dict[str, ClassFile], dex: Path) -> None:
    """Android 8.0's runtime has neither the instruction nor the classes behind it."""
    listing = subprocess.run([command("dexdump"), "-d", str(dex)], capture_output=True, text=True, check=True)
    assert "invoke-virtual" in listing.stdout
    assert "invoke-custom" not in listing.stdout
    assert not [found.name for found in shipped.values() if found.is_dynamic]


def test_it_is_all_ours(shipped: dict[str, ClassFile]) -> None:
    """The app, its host, no library and none of the stubs."""
    packages = {name.rpartition("/")[0] for name in shipped}
    assert packages == {"dev/pocketglm/app", "dev/pocketglm/core"}
    sources = [*(ROOT / "android" / "app").rglob("*.java"), *(ROOT / "android" / "core").rglob("*.java")]
    assert {path.stem for path in sources} <= {name.rpartition("/")[2] for name in shipped}


def test_the_page_may_call_one_method(dex: Path) -> None:
    listing = subprocess.run([command("dexdump"), "-a", str(dex)], capture_output=True, text=True, check=True)
    blocks = re.findall(r"Annotations on method #\d+ '(\w+)'\n((?:  .*\n)+)", listing.stdout)
    assert len(blocks) > 1
    assert [name for name, block in blocks if "Landroid/webkit/JavascriptInterface;" in block] == ["send"]
