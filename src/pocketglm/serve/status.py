"""What the page shows of a running server.

Enters: the service. Leaves: one object: the model, where its blocks run, memory, how busy it is.
"""

from __future__ import annotations

from typing import Any

from pocketglm import __version__
from pocketglm.errors import InputError
from pocketglm.generate.memory_budget import resident_bytes
from pocketglm.generate.model import Model
from pocketglm.serve.protocol_answers import BlockPlace, MemoryUse, RequestCounts, Status
from pocketglm.serve.service import Service

SHOWN_DEFAULTS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_new_tokens",
)


MEMORY_KINDS = ("weight", "cache", "buffer", "gpu")


def status_of(service: Service) -> Status:
    """The state of this moment."""
    model, load = service.engine.model, service.engine.load_now
    usage = _usage(model)
    settings = model.settings()
    return Status(
        model=service.settings.model_name,
        context_length=model.context,
        engine=model.engine_name,
        threads=usage.get("threads"),
        blocks=[
            BlockPlace(index=index, engine=engine, place=where)
            for index, (engine, where) in enumerate(model.places())
        ],
        memory=MemoryUse(
            rss_bytes=resident_bytes(),
            **{f"{name}_bytes": int(usage.get(f"{name}_bytes", 0)) for name in MEMORY_KINDS},
        ),
        requests=RequestCounts(
            running=load.running, waiting=load.waiting, limit=service.engine.settings.running
        ),
        sampling_defaults={name: getattr(settings, name) for name in SHOWN_DEFAULTS},
        template=model.has_template,
        tools=not isinstance(service.tool_format, InputError),
        version=__version__,
    )


def _usage(model: Model) -> dict[str, Any]:
    """Bytes of all stages and the head, of engines that tell; caches are counted under the model's lock."""
    found: dict[str, Any] = {}
    with model.lock:
        for part, loaded in zip(model.parts, (*model.stages, model.head), strict=True):
            tell = getattr(loaded, "usage", None)
            for name, value in (tell() if tell else {}).items():
                if part.on_gpu:
                    found["gpu_bytes"] = found.get("gpu_bytes", 0) + value
                elif name.endswith("_bytes"):
                    found[name] = found.get(name, 0) + value
                else:
                    found.setdefault(name, value)
    return found
