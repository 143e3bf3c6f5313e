"""Texts that tokenizers are compared on, and small vocabularies trained on them."""

from __future__ import annotations

import io
import random
from pathlib import Path

from hypothesis import strategies as st

CHINESE = """\
清晨的码头还笼着雾，老周把缆绳一圈圈绕好，抬头看了看天：“今天风向不对。”儿子没有答话，只是把渔网往船舱里挪了挪。
机器学习并不神秘。给定训练数据，模型调整参数，使预测误差逐步下降；困难在于泛化——没见过的样本才是考题。
二〇二四年第3季度，营业收入同比增长12.5%，达到￥8,400万元（未经审计）。
你好，世界！请问图书馆几点开门？周一至周五，上午9:00—下午5:30；周末闭馆。
「引号」、『双引号』、《书名》、【方括号】……都要试一试。繁體字也要測試：龍、鬱、體、臺灣。
"""

ENGLISH = """\
The ferry left at dawn, and nobody on the quay thought to wave. It's odd, isn't it? We'd've gone ourselves,
if the weather hadn't turned; they'll say we're careless, but I'm sure you've seen worse.
HELLO World! MiXeD cAsE, don't DON'T Don'T, state-of-the-art, e-mail@example.org, https://example.org/a?b=c&d=%20#f
Numbers: 0 1 12 123 1234 12345 3.14159 -1e-10 0xDEADBEEF 1,000,000 10% $5.00 №7 ½ ² ⅷ ٣ 一二三
"""

CODE = """\
def quicksort(items: list[int]) -> list[int]:
    if len(items) <= 1:
\t\treturn items  # a tab, then   three blanks
    pivot, *rest = items
    return quicksort([x for x in rest if x < pivot]) + [pivot] + quicksort([x for x in rest if x >= pivot])


int main(void) { printf("%d\\n", 1 << 4); return 0; }
<div class="row">&nbsp;<!-- comment --></div>\r\nSELECT * FROM t WHERE a != 'b';\r\n
"""

UNUSUAL = [
    "",
    " ",
    "  ",
    "   leading and trailing   ",
    "\n",
    "\n\n\n",
    "\t",
    "\t \t  \n \r\n \r",
    " " * 2,
    " " * 79,
    " " * 80,
    " " * 81,
    " " * 163,
    "a" + " " * 40 + "b" + " " * 5 + "\n" + " " * 7 + "c",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababab bababababab",
    "哈哈哈哈哈哈哈哈哈哈哈",
    "----------------------------------------========================",
    "😀😃 👨‍👩‍👧‍👦 🏳️‍🌈 🇨🇳🇪🇸 👍🏽",
    "e\u0301 é n\u0303 ñ a\u0308\u0323 \u1100\u1161\u11a8 각 ﬁ ﬃ Å Å Ω Ω",
    "ｆｕｌｌ－ｗｉｄｔｈ　１２３ ｶﾀｶﾅ カタカナ ひらがな 한국어 문장",
    "Привет, мир! Ελληνικά שלום עולם مرحبا بالعالم नमस्ते ไทย Tiếng Việt ሰላም",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u200dwidth\ufeffbom\u00adsoft\u2028line\u2029paragraph\u0085next",
    "\x00\x01\x02\x07\x08\x0b\x0c\x1b\x1f\x7f\x80\x9f",
    "\ufffd \ufffe \uffff \U0010ffff \ue000 \U000f0000",
    "▁▁ ▁a▁ b▁",
    "<0x41><0x0A> <0xE4><0xBD>",
    "<s></s><unk><pad> [INST] <|user|> [gMASK]<sop> <|im_start|>",
    "'s 'S 'ſ 'LL 'll 'D x'T \u2019s",
    "𝓾𝓷𝓲𝓬𝓸𝓭𝓮 𠀀𠀁 𐍈 ㍿ ㊙ ⅻ",
    "a\u0301\u0302\u0303\u0304\u0305\u0306 z\u0335",
    "x\u200d\u200dy\ufe0f\ufe0e",
]

MIXED_TEXTS = [
    CHINESE,
    ENGLISH,
    CODE,
    *CHINESE.splitlines(),
    *ENGLISH.splitlines(),
    *CODE.splitlines(),
    *UNUSUAL,
    CHINESE + ENGLISH + CODE + "".join(UNUSUAL),
]

_PARTS = [
    *"ab AZ09.,!?'\n\t\r▁\u0301你好的，。é\u3000",
    "  ",
    "the ",
    " a",
    "ing",
    "<n>",
    "<s>",
    "你好",
    "😀",
    "\ue123",
    "\x00",
]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of up to 60 parts: ordinary ones, cuts of the mixed texts, and characters from anywhere."""
    source = random.Random(seed)
    whole = MIXED_TEXTS[-1]
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(source.randrange(1, 60)):
            kind = source.random()
            if kind < 0.6:
                pieces.append(source.choice(_PARTS))
            elif kind < 0.85:
                start = source.randrange(len(whole))
                pieces.append(whole[start : start + source.randrange(12)])
            else:
                code = source.choice(
                    [source.randrange(0x800), source.randrange(0x10000), source.randrange(0x110000)]
                )
                pieces.append("" if 0xD800 <= code < 0xE000 else chr(code))
        texts.append("".join(pieces))
    return texts


TEXTS = st.text(max_size=60) | st.lists(st.sampled_from(_PARTS), max_size=40).map("".join)
"""Any text, and texts in which the usual parts of a language meet."""


def corpus() -> list[str]:
    """Lines to train a small vocabulary on."""
    lines = (CHINESE + ENGLISH + CODE).splitlines()
    return [line for line in lines * 3 if line.strip()]


def train_sentencepiece(path: Path, kind: str, vocab_size: int, **settings: object) -> Path:
    """Train a small SentencePiece model on our own texts and write it to `path`."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type=kind,
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **settings,
    )
    path.write_bytes(model.getvalue())
    return path
