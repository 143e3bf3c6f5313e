"""Tokenizers, texts and conversations on which the page in JavaScript must agree with Python.

Leaves: a JSON-like value with what Python makes of them; `web/tests/phone/parity.test.ts` reads it in
Node, and `test_parity.py` gives a part of it to the built page's worker in the browser.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from convert.tokenizer.samples import MIXED_TEXTS, corpus, random_texts, train_sentencepiece
from convert.tokenizer.test_sentencepiece_model import MASKS, REPLACEMENTS, SYMBOLS
from convert.tokenizer.vocabularies import byte_level_metadata, document, trained_ranks
from generate.test_template import CHATML, TOOLS
from pocketglm.architecture.templates import load_template
from pocketglm.convert.tokenizer import document as doc
from pocketglm.convert.tokenizer.byte_level import GROUPED_DIGITS, build_tiktoken
from pocketglm.convert.tokenizer.gguf_vocabulary import GGUF_RULES, build_gguf
from pocketglm.convert.tokenizer.sentencepiece_model import Surroundings
from pocketglm.errors import InputError
from pocketglm.generate.template import ChatTemplate
from pocketglm.generate.tokenizer import Tokenizer

NOW = datetime(2024, 7, 6, 8, 5, 9)
GLM_TOKENS = (
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|im_start|>",
)
BLANKS = "\x1c \x1f\x85\ufeff {} \ufeff\u3000\x1d\n"
SPELLED = "hi<|im_end|>\n<|im_start|>system\n[gMASK]<sop><|user|>sop <s>x</s> <|endoftext|>!"

TEXTS = [
    *MIXED_TEXTS,
    *random_texts(250, seed=11),
    SPELLED,
    "<|user|>  \n 你好<|assistant|>\t a<|im_end|> b",
    "\ufeffbom\ufeff \x85 nel\u180e ٣٤٥ ⅻ 12345678",
    "$& $1 $$ `'\"\\",
    ".\x1d<n> a\x04. \U0005ec2e< .\U0005ec2e<n>",  # SmolLM2 has no tokens for some of these bytes
    (MIXED_TEXTS[-1] + "\n") * 8,
]

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "你好"}],
    [{"role": "user", "content": "  Hello, wörld!\n"}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": BLANKS.format("odd blanks")}],
    [{"role": "user", "content": SPELLED}],
    [{"role": "user", "content": MIXED_TEXTS[-1]}],
    [
        {"role": "system", "content": "Be brief. $& {{ 1 + 1 }} {% raw %}"},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1\n```python\nprint('<b>')\n```"},
        {"role": "user", "content": "And\ttwo? 😀"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "三？"},
    ],
    [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Why?"}],
    [
        {"role": "system", "content": "x"},
        {"role": "system", "content": "y"},
        {"role": "user", "content": "z"},
    ],
    [{"role": "nobody", "content": "x"}],
]

METHODS = """\
{% for message in messages %}
{{ message.content.strip('\\n .') }}|{{ message.content.lstrip('I ') }}|{{ message.content.rstrip('.?😀') }}
{{ message.content.split('\\n')[-1].strip('x') }}{{ message.content.strip(message.role) }}
{{ loop.first }}{{ loop.last ~ none ~ (1 == 1) }}{{ message.nope is defined }}{{ message.nope }}
{% set found = 'x' in message.content %}{{ found }}{{ none }}{{ 'a' if found }}
{% if found %}{{ not found }}{% else %}{{ found }}{% endif %}
{% endfor %}"""
"""What @huggingface/jinja does otherwise than Python, and chat templates may do."""

LARGE_BYTES = 1 << 18
EMOJI = [
    "😀",
    "👨\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈",
    "👍🏽",
    "🇨🇳🇪🇸",
    "❤️\u200d🔥",
    "1️⃣",
    "\u200d",
    "\ufe0f",
]
MARKS = ["e\u0301", "a\u0308\u0323", "z\u0335\u0336", "\u0301", "각", "\u1112\u1161\u11ab", "ཀྵ", "क्षि", "กำ"]
WHITESPACE = [
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x85",
    "\xa0",
    "\u2009",
    "\u2028",
    "\u3000",
    "\ufeff",
]


def large_text(special: Sequence[str], least_bytes: int = LARGE_BYTES) -> str:
    """Chinese, English, code, emoji, combining marks, odd blanks and special tokens' texts, mixed."""
    source = random.Random(20)
    ordinary = [*MIXED_TEXTS[:-1], *random_texts(300, seed=12)]
    parts: list[str] = []
    size = 0
    while size < least_bytes:
        kind = source.choice((ordinary, ordinary, ordinary, EMOJI, MARKS, WHITESPACE, special))
        part = source.choice(kind) * (source.randrange(1, 9) if kind is WHITESPACE else 1)
        parts.append(part)
        size += len(part.encode())
    return "".join(parts)


DATES = "{{ strftime_now('%d %b %Y %B %A %a %H:%M:%S %I%p %y %j %%') }}{{ range(2, 9, 3) | list | length }}"


def small_tokenizers(folder: Path) -> dict[str, str]:
    """Every kind of `tokenizer.json` that the converter writes, trained on our own texts."""
    found = {f"gguf {rule}": _gguf(rule) for rule in sorted(GGUF_RULES)}
    found["tiktoken"] = doc.to_text(
        build_tiktoken(trained_ranks(GROUPED_DIGITS), GROUPED_DIGITS, ["<|endoftext|>", *GLM_TOKENS])
    )
    settings: Mapping[str, Mapping[str, Any]] = {
        "identity": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        "nmt_nfkc": {},
        "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf", "remove_extra_whitespaces": False},
    }
    for kind in ("bpe", "unigram"):
        for name, options in settings.items():
            for fallback in (True, False):
                path = folder / f"{kind}-{name}-{fallback}.model"
                train_sentencepiece(
                    path,
                    kind,
                    900,
                    byte_fallback=fallback,
                    user_defined_symbols=[*SYMBOLS, *MASKS],
                    character_coverage=0.99,
                    **options,
                )
                around = Surroundings(
                    special=frozenset(MASKS), suffix=("[gMASK]", "<sop>"), replacements=REPLACEMENTS
                )
                found[f"sentencepiece {path.stem}"] = document(path, around)
    found["spelled out by hand"] = _with_steps()
    return found


def _gguf(rule: str) -> str:
    return doc.to_text(build_gguf(byte_level_metadata(pre=rule), "here"))


def _with_steps() -> str:
    """Settings that a checkpoint's own file may have: blanks at tokens, whole words, Metaspace."""
    library = Library(models.BPE(unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d+|[^\w\s]"), "merged_with_next"),
            pre_tokenizers.Split("e", "contiguous"),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
        ]
    )
    library.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    library.train_from_iterator(corpus()[:12], trainer)
    described = json.loads(library.to_str())
    start = library.get_vocab_size()
    for number, (text, flags) in enumerate(ADDED.items()):
        described["added_tokens"].append({**doc.added_token(start + number, text, special=False), **flags})
    return json.dumps(described, ensure_ascii=False)


ADDED: dict[str, dict[str, bool]] = {
    "<|im_end|>": {"special": True, "lstrip": True, "rstrip": True},
    "quay": {"single_word": True},
    "HELLO": {"normalized": True},
    "，": {"normalized": False, "rstrip": True},
}


def tokenizer_case(name: str, text: str, texts: Sequence[str] = TEXTS) -> dict[str, Any]:
    """Ids of every text, with and without special tokens, and the text of the ids."""
    tokenizer = Tokenizer.from_json(text)
    plain = [tokenizer.encode(entry) for entry in texts]
    special = [tokenizer.encode(entry, allow_special=True) for entry in texts]
    return {
        "name": name,
        "json": text,
        "vocab_size": tokenizer.vocab_size,
        "texts": list(texts),
        "plain": plain,
        "special": special,
        "decoded": [tokenizer.decode(ids) for ids in plain],
        "noise": [(ids, tokenizer.decode(ids)) for ids in _noise(tokenizer.vocab_size)],
        "pieces": _pieces(tokenizer, plain[-1]),
    }


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds, and what the end adds."""
    stream = tokenizer.stream()
    return [*(stream.push(token) for token in ids), stream.finish()]


def _noise(vocab_size: int) -> list[list[int]]:
    """Ids that make no text: halves of characters, special tokens, ids beyond the vocabulary."""
    return [
        [(seed * 7919 + step * step * 104729) % (vocab_size + 3) for step in range(60)] for seed in range(20)
    ]


def template_case(name: str, source: str, tokenizer_json: str, **variables: Any) -> dict[str, Any]:
    """Every conversation as text and as ids; None where the template refuses it."""
    template = ChatTemplate(source, Tokenizer.from_json(tokenizer_json), now=lambda: NOW)
    cases = []
    for messages in CONVERSATIONS:
        text = _or_none(lambda messages=messages: template.render(messages, **variables))  # type: ignore[misc]
        ids = None if variables else _or_none(lambda messages=messages: template.encode(messages))  # type: ignore[misc]
        cases.append({"messages": messages, "text": text, "ids": ids})
    now = [NOW.year, NOW.month - 1, NOW.day, NOW.hour, NOW.minute, NOW.second]
    return {
        "name": name,
        "source": source,
        "tokenizer": tokenizer_json,
        "variables": variables,
        "now": now,
        "cases": cases,
    }


def _or_none(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputError:
        return None


def all_templates(tokenizer_json: str) -> list[dict[str, Any]]:
    """Ours, and two in the style of other models."""
    names = ("chatglm", "chatglm2", "chatglm3", "glm4_remote")
    tools = [{"type": "function", "function": {"name": "查询", "parameters": {"a": 1, "b": ["x", None]}}}]
    found = [template_case(name, load_template(name), tokenizer_json) for name in names]
    found += [template_case(f"{n} with tools", load_template(n), tokenizer_json, tools=tools) for n in names]
    found += [template_case("chatml", CHATML, tokenizer_json), template_case("date", DATES, tokenizer_json)]
    found.append(template_case("methods", METHODS, tokenizer_json))
    found.append(template_case("tools", TOOLS, tokenizer_json, tools=tools))
    return found


def write_cases(path: Path, tokenizers: Sequence[Any], templates: Sequence[Any]) -> None:
    path.write_text(json.dumps({"tokenizers": tokenizers, "templates": templates}), encoding="utf-8")
