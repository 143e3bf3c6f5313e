"""The built page, served from the installed package.

Enters: the package folder `pocketglm/web`, read once at the start. Leaves: bytes by URL path. Only what was
found then can be asked for, so no path from a request ever reaches the file system.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

FOLDER = "web"
INDEX = "index.html"
ASSETS = "assets"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""Files with other endings are not served."""

NOT_BUILT = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>PocketGLM</title></head><body>
<h1>PocketGLM</h1>
<p>The server runs, but its page was not built. The API is at <code>/v1</code>.</p>
<p>To get the page, install PocketGLM again from its source folder: <code>pip install '.[serve]'</code></p>
</body></html>
"""


@dataclass(frozen=True)
class WebFile:
    """A file of the page. Names under `assets/` carry a hash of their content and never change."""

    data: bytes
    media_type: str
    etag: str
    cache_control: str


def read_web_files(folder: Traversable | None = None) -> dict[str, WebFile]:
    """The files of the page by URL path; only a notice at `/` where the page was not built."""
    folder = folder if folder is not None else _built_folder()
    found = dict(_walk(folder, "")) if folder.is_dir() else {}
    if INDEX not in found:
        return {"/": _web_file(NOT_BUILT, ".html", "no-store")}
    served = {f"/{name}": file for name, file in found.items()}
    return {"/": served[f"/{INDEX}"], **served}


def _built_folder() -> Traversable:
    """Where the build has put the page: beside the modules, or apart from them in an editable install."""
    beside = files("pocketglm").joinpath(FOLDER)
    if beside.is_dir():
        return beside
    try:
        return Path(str(distribution("pocketglm").locate_file(f"pocketglm/{FOLDER}")))
    except PackageNotFoundError:  # run from the sources without being installed
        return beside


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, WebFile]]:
    found = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        suffix = f".{entry.name.rsplit('.', 1)[-1].lower()}"
        if entry.is_dir():
            found += _walk(entry, f"{name}/")
        elif suffix in TYPES:
            lasting = name.startswith(f"{ASSETS}/")
            cache = "public, max-age=31536000, immutable" if lasting else "no-cache"
            found.append((name, _web_file(entry.read_bytes(), suffix, cache)))
    return found


def _web_file(data: bytes, suffix: str, cache_control: str) -> WebFile:
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    return WebFile(data, TYPES[suffix], etag, cache_control)
