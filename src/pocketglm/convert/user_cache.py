"""The folder for files that can be made or fetched again, where each platform keeps such files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "POCKETGLM_CACHE"


def cache_directory() -> Path:
    """`POCKETGLM_CACHE`, or the platform's cache folder. It need not exist yet.

    Linux: the XDG Base Directory Specification. macOS: ~/Library/Caches. Windows: %LOCALAPPDATA%.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local or Path.home() / "AppData" / "Local") / "pocketglm" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pocketglm"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path must be ignored.
    return Path(xdg if os.path.isabs(xdg) else Path.home() / ".cache") / "pocketglm"
