r"""The tiny checkpoints that MNN's own exporter (llmexport of MNN 3.6.1) made the directories here of.

    python make_llmexport_checkpoint.py qwen2 checkpoint      # or qwen3, with --lm_quant_bit 8 below
    python MNN/transformers/llm/export/llmexport.py --path checkpoint --export mnn --quant_bit 4 \
        --quant_block 32 --lm_quant_bit 4 --lm_quant_block 32 --dst_path llmexport-qwen2-tiny \
        --mnnconvert PROGRAM

PROGRAM passes its arguments to `_tools.mnnconvert`; without it the exporter calls the wheel's wrapper, which
installs packages. Only the files that a model needs were kept.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


FAMILIES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM, 16), "qwen3": (Qwen3Config, Qwen3ForCausalLM, 32)}


def main(family: str, path: str) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config_class, model_class, head_dim = FAMILIES[family]
    config = config_class(
        vocab_size=288,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    model = model_class(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)  # biases too, which start as zeros
    model.save_pretrained(path)
    fast.save_pretrained(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
