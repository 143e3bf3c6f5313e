"""The web page's files, as the package build made them.

Enters: nothing. Leaves: every file of the page, in memory, by the path under which a browser asks for it.
They are read once: a request picks a name from a table and never reaches the file system.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# Nothing from outside, nothing inline, no eval: what a model writes can neither run nor call home.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Fixed here and not asked of the machine: Windows' registry can name other types.
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """One file. `immutable`: its name holds a hash of its content, so a browser may keep it for ever."""

    content: bytes
    media_type: str
    immutable: bool


def files() -> dict[str, PageFile]:
    """All files by path, `index.html` among them; empty where the package was built without the page."""
    folder = package_files("pocketglm").joinpath("web")
    return dict(_walk(folder, "")) if folder.joinpath("index.html").is_file() else {}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, PageFile]]:
    found: list[tuple[str, PageFile]] = []
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            found += _walk(entry, f"{path}/")
        else:
            found.append((path, _file(entry, path)))
    return found


def _file(entry: Traversable, path: str) -> PageFile:
    suffix = "." + path.rpartition(".")[2]
    media_type = _MEDIA_TYPES.get(suffix, "application/octet-stream")
    return PageFile(entry.read_bytes(), media_type, immutable=path.startswith("assets/"))
