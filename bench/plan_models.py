"""The models of `bench/plan.py`: a small real one, and random ones of middle size.

Enters: a folder and a name. Leaves: a package, made there if it is not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from peers.shape import Shape
from peers.write_package import llama_spec, write_package

from pocketglm.convert import ConvertSettings, convert
from pocketglm.convert.random_checkpoint import ChatGLMSize, write_random_checkpoint
from pocketglm.quantize.formats import Bits, WeightFormat
from pocketglm.quantize.settings import QuantizeSettings, head_format

CHATGLM = ChatGLMSize(blocks=12, hidden=1536, heads=12, vocabulary=16384, shards=1)
LLAMA = Shape(hidden=2048, intermediate=5632, heads=16, kv_heads=4, blocks=10, vocabulary=16384)


def prepared(folder: Path, name: str, gguf: Path | None) -> Path:
    """The package called `name`; `gguf` is SmolLM2-135M-Instruct, where that is wanted."""
    path = folder / name
    if not (path / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        MODELS[name](path, gguf)
    return path


def _settings(bits: Bits, group: int) -> ConvertSettings:
    block = WeightFormat(bits, group)
    return ConvertSettings(QuantizeSettings(block, head_format(block)), report=False)


def _smollm2(bits: Bits) -> Callable[[Path, Path | None], None]:
    def make(path: Path, gguf: Path | None) -> None:
        if gguf is None:
            raise SystemExit(f"{path.name} is made of SmolLM2-135M-Instruct: say where it is with --gguf")
        convert(gguf, path, _settings(bits, 32))

    return make


def _chatglm(path: Path, gguf: Path | None) -> None:
    with TemporaryDirectory(dir=path.parent) as folder:
        convert(write_random_checkpoint(Path(folder), CHATGLM), path, _settings(4, 64))


def _llama(path: Path, gguf: Path | None) -> None:
    write_package(path, llama_spec(LLAMA))


MODELS: Mapping[str, Callable[[Path, Path | None], None]] = {
    "smollm2-int4": _smollm2(4),
    "smollm2-int8": _smollm2(8),
    "chatglm-int4": _chatglm,
    "llama-int4": _llama,
}
