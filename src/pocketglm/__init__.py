"""PocketGLM: large language models in little memory.

    import pocketglm
    model = pocketglm.load("chatglm-6b-int4")

Importing this module reads nothing and imports nothing heavy; each name is fetched when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketglm.errors import PocketGLMError
    from pocketglm.generate.chat import Conversation
    from pocketglm.generate.model import Model, load
    from pocketglm.generate.sampler import SamplingSettings
    from pocketglm.generate.session import Session
    from pocketglm.plan.placement import Placement
    from pocketglm.serve.async_model import AsyncModel

__version__ = "0.1.0"

_EXPORTS = {
    "AsyncModel": "pocketglm.serve.async_model",
    "Conversation": "pocketglm.generate.chat",
    "Model": "pocketglm.generate.model",
    "Placement": "pocketglm.plan.placement",
    "PocketGLMError": "pocketglm.errors",
    "SamplingSettings": "pocketglm.generate.sampler",
    "Session": "pocketglm.generate.session",
    "load": "pocketglm.generate.model",
}

__all__ = [
    "AsyncModel",
    "Conversation",
    "Model",
    "Placement",
    "PocketGLMError",
    "SamplingSettings",
    "Session",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'pocketglm' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
