"""Small seeded models under the names that the pages use, so that their commands can run.

Enters: a folder. Leaves: `chatglm-6b/` in the official layout, `SmolLM2-135M-Instruct.Q4_1.gguf` (a
tiny Llama with SmolLM2's special tokens) and `bench/evaluation_text.txt`, shortened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from docs.markdown import ROOT
from pocketglm.convert.demo_chatglm import RESERVED_ROWS, TOKENIZER_FILE, build_tokenizer
from pocketglm.convert.random_checkpoint import ChatGLMSize, write_random_checkpoint

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHATGLM = "chatglm-6b"
TEXT = "bench/evaluation_text.txt"
TEXT_LENGTH = 700
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, INNER, CONTEXT = 64, 96, 512


def write_stand_ins(folder: Path) -> None:
    (folder / TEXT).parent.mkdir()
    (folder / TEXT).write_text((ROOT / TEXT).read_text("utf-8")[:TEXT_LENGTH], "utf-8")
    write_chatglm(folder / CHATGLM)
    write_gguf(folder / GGUF)


def write_chatglm(folder: Path) -> None:
    tokenizer, ordinary = build_tokenizer()
    size = ChatGLMSize(blocks=2, hidden=HIDDEN, heads=4, vocabulary=ordinary + RESERVED_ROWS, shards=2)
    write_random_checkpoint(folder, size)
    (folder / TOKENIZER_FILE).write_bytes(tokenizer)


def write_gguf(path: Path) -> None:
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*SPECIAL, *letters, "Ġt"]  # what the only merge makes
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(2)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(letters) + 1))
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    for name, shape in tensor_shapes(len(tokens)).items():
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, 0.1, shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (vocabulary, HIDDEN), "output_norm": (HIDDEN,)}
    linears = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (HIDDEN // 2, HIDDEN),
        "attn_v": (HIDDEN // 2, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (INNER, HIDDEN),
        "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER),
    }
    for block in range(2):
        shapes |= {f"blk.{block}.{norm}": (HIDDEN,) for norm in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{block}.{name}": shape for name, shape in linears.items()}
    return shapes
