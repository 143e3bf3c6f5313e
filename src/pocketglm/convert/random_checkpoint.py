"""A ChatGLM-6B checkpoint with seeded random weights, in the official file layout, of any size.

Enters: sizes. Leaves: `config.json`, sharded `pytorch_model-*.bin` and their index, float16 with
float32 layer norms, as the model's authors publish it. The full size (the defaults: 28 blocks, 12.4 GB)
shows what converting the real model costs; a small one shows the layout. Run

    python -m pocketglm.convert.random_checkpoint DIR [--blocks 28] [--hidden 4096] ...
"""

from __future__ import annotations

import argparse
import json
import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pocketglm.package.writer import disk_errors

CHUNK_ELEMENTS = 8 << 20
INIT_STD = 0.02
"""Standard deviation of random weights, the usual initialisation of transformers."""


@dataclass(frozen=True)
class ChatGLMSize:
    """Sizes of a ChatGLM-6B-shaped model; the defaults are the real one's (2023 slim release)."""

    blocks: int = 28
    hidden: int = 4096
    heads: int = 32
    vocabulary: int = 130528
    shards: int = 8
    seed: int = 0

    def config(self) -> dict[str, Any]:
        """`config.json`. The special ids are the last but 524 of the vocabulary, as in the release."""
        base = self.vocabulary - 528
        return {
            "model_type": "chatglm",
            "architectures": ["ChatGLMModel"],
            "hidden_size": self.hidden,
            "inner_hidden_size": 4 * self.hidden,
            "layernorm_epsilon": 1e-05,
            "max_sequence_length": 2048,
            "num_attention_heads": self.heads,
            "num_layers": self.blocks,
            "position_encoding_2d": True,
            "vocab_size": self.vocabulary,
            "torch_dtype": "float16",
            "use_cache": True,
            "mask_token_id": base,
            "gmask_token_id": base + 1,
            "bos_token_id": base + 4,
            "eos_token_id": base + 5,
            "pad_token_id": 3,
        }

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the official order. Layer norms are told by their names."""
        hidden, inner = self.hidden, 4 * self.hidden
        found: list[tuple[str, tuple[int, ...]]] = [
            ("transformer.word_embeddings.weight", (self.vocabulary, hidden))
        ]
        linears = (
            ("attention.query_key_value", 3 * hidden, hidden),
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", inner, hidden),
            ("mlp.dense_4h_to_h", hidden, inner),
        )
        for block in range(self.blocks):
            prefix = f"transformer.layers.{block}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                found += [(f"{prefix}{norm}.weight", (hidden,)), (f"{prefix}{norm}.bias", (hidden,))]
            found.append((f"{prefix}attention.rotary_emb.inv_freq", (hidden // self.heads // 4,)))
            for name, rows, columns in linears:
                found += [(f"{prefix}{name}.weight", (rows, columns)), (f"{prefix}{name}.bias", (rows,))]
        found += [(f"transformer.final_layernorm.{part}", (hidden,)) for part in ("weight", "bias")]
        return [*found, ("lm_head.weight", (self.vocabulary, hidden))]


def write_random_checkpoint(directory: Path, size: ChatGLMSize | None = None) -> Path:
    """Write the checkpoint and return its directory. Memory stays below about 200 MiB."""
    size = size or ChatGLMSize()
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(size.config(), indent=1), "utf-8")
        shards = _distribute(size.tensors(), size.shards)
        names = [f"pytorch_model-{i + 1:05d}-of-{len(shards):05d}.bin" for i in range(len(shards))]
        for name, shard in zip(names, shards, strict=True):
            _write_shard(directory / name, shard, size)
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor, _ in shard}
        total = sum(_element_bytes(tensor) * math.prod(shape) for shard in shards for tensor, shape in shard)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1), "utf-8")
    return directory


Tensor = tuple[str, tuple[int, ...]]


def _distribute(tensors: list[Tensor], shards: int) -> list[list[Tensor]]:
    """Consecutive runs of tensors of about equal size."""
    total = sum(math.prod(shape) for _, shape in tensors)
    runs: list[list[Tensor]] = [[] for _ in range(shards)]
    done = 0
    for name, shape in tensors:
        runs[min(shards - 1, done * shards // total)].append((name, shape))
        done += math.prod(shape)
    return [run for run in runs if run]


def _is_norm(name: str) -> bool:
    return "layernorm" in name


def _element_bytes(name: str) -> int:
    return 4 if _is_norm(name) else 2


def _write_shard(path: Path, tensors: list[Tensor], size: ChatGLMSize) -> None:
    """One zip archive as `torch.save` makes it: a pickle that names storages, and their bytes."""
    root = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(f"{root}/data.pkl", _pickle(tensors))
        archive.writestr(f"{root}/byteorder", "little")
        for key, (name, shape) in enumerate(tensors):
            with archive.open(f"{root}/data/{key}", "w", force_zip64=True) as entry:
                _write_values(entry, name, shape, size)
        archive.writestr(f"{root}/version", "3\n")


def _write_values(entry: IO[bytes], name: str, shape: tuple[int, ...], size: ChatGLMSize) -> None:
    if name.endswith("inv_freq"):
        dims = 2 * shape[0]
        entry.write((1e4 ** -(np.arange(0, dims, 2) / dims)).astype("<f2").tobytes())
    elif _is_norm(name):
        entry.write(np.full(shape, 1.0 if name.endswith("weight") else 0.0, "<f4").tobytes())
    else:
        # The head equals the embedding, as in the release: the same seed, the same values.
        seed = (size.seed, 0 if name == "lm_head.weight" else _number(name, size))
        with ThreadPoolExecutor(2) as pool:
            for values in _ahead(pool, seed, math.prod(shape)):
                entry.write(values.tobytes())


def _number(name: str, size: ChatGLMSize) -> int:
    return [tensor for tensor, _ in size.tensors()].index(name)


def _ahead(pool: ThreadPoolExecutor, seed: tuple[int, int], elements: int) -> Iterator[NDArray[np.float16]]:
    """Random values in chunks; the next ones are drawn while the caller writes."""
    starts = range(0, elements, CHUNK_ELEMENTS)
    chunks = (
        pool.submit(_draw, (*seed, i), min(CHUNK_ELEMENTS, elements - start))
        for i, start in zip(count(), starts, strict=False)
    )
    pending = [chunk for _, chunk in zip(range(2), chunks, strict=False)]
    while pending:
        yield pending.pop(0).result()
        pending += [chunk for _, chunk in zip(range(1), chunks, strict=False)]


def _draw(seed: tuple[int, ...], elements: int) -> NDArray[np.float16]:
    generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed)))
    values = generator.standard_normal(elements, dtype=np.float32)
    values *= np.float32(INIT_STD)
    return values.astype("<f2")


def _pickle(tensors: list[Tensor]) -> bytes:
    """Pickle (protocol 2) of an OrderedDict of tensors, opcode by opcode: torch is not needed.

    Opcodes: https://docs.python.org/3/library/pickletools.html; what they build is documented with
    `torch.save` (https://docs.pytorch.org/docs/stable/notes/serialization.html).
    """
    empty_dict = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", empty_dict, b"("]
    for key, (name, shape) in enumerate(tensors):
        storage = b"FloatStorage" if _is_norm(name) else b"HalfStorage"
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        persistent = (
            b"(" + _text("storage") + b"ctorch\n" + storage + b"\n" + _text(str(key)) + _text("cpu")
            + _integer(math.prod(shape)) + b"tQ"
        )  # fmt: skip
        arguments = (
            persistent + _integer(0) + b"(" + b"".join(map(_integer, shape)) + b"t("
            + b"".join(map(_integer, strides)) + b"t\x89" + empty_dict
        )  # fmt: skip
        parts.append(_text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR")
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integer(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write a ChatGLM-6B checkpoint with random weights.")
    parser.add_argument("directory", type=Path)
    for name, default in vars(ChatGLMSize()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    write_random_checkpoint(options.pop("directory"), ChatGLMSize(**options))


if __name__ == "__main__":
    _main()
