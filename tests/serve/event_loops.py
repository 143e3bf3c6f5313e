"""Coroutines from tests that are none.

Enters: a coroutine. Leaves: its result. It runs in a thread of its own, because Playwright, once a test of
the page has started it, keeps an event loop running in the main one until the session's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run(coroutine: Coroutine[Any, Any, Any], seconds: float = 60) -> Any:
    """Run to the end, in at most `seconds`."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asyncio.wait_for(coroutine, seconds)).result()
